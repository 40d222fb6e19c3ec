typedef int hypura_engine_stub;

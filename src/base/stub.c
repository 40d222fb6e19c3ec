typedef int hypura_base_stub;

typedef int hypura_backend_stub;

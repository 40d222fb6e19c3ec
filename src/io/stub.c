typedef int hypura_io_stub;

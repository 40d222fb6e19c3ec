typedef int hypura_os_stub;

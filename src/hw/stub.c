typedef int hypura_hw_stub;

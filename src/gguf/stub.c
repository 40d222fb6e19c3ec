typedef int hypura_gguf_stub;

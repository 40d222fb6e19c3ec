typedef int hypura_cache_stub;

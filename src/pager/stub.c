typedef int hypura_pager_stub;

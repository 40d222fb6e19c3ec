#include "pager/pager.h"

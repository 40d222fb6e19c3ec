#include "cache/cache.h"
#include "../engine/engine.h"

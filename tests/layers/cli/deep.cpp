#include <string>
#include "hypura.h"
#include "base/status.h"
#include "engine/engine.h"

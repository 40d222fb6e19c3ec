#include "hypura.h"

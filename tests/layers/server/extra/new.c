#include "server/dialect/acts.h"

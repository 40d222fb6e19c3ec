#include "server/endpoint/routes.h"

#include "base/status.h"
#include "server/http/http.h"
#include "server/endpoint/routes.h"
#include "../server.h"

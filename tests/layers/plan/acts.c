#include "base/status.h"
#include "gguf/model.h"
  #  include <os/os.h>

/* standin_throw.cpp - see standin.h. */
#include "standin.h"

#include <stdexcept>

void standin_throw(const char *what)
{
    throw std::runtime_error(what);
}

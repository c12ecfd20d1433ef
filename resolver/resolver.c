#include "resolver/resolver.h"

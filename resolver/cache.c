#include "resolver/cache.h"

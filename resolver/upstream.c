#include "resolver/upstream.h"

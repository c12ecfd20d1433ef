#include "common/ports.h"

#include "common/lease.h"

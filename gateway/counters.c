#include "gateway/counters.h"

#include "common/reason.h"

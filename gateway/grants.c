#include "gateway/grants.h"

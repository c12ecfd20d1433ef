#include "gateway/environment.h"

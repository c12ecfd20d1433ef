#include "gateway/denials.h"

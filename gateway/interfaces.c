#include "gateway/interfaces.h"

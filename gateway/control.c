#include "gateway/control.h"

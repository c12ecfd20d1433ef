#include "gateway/watch.h"

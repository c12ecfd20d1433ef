#include "gateway/classify.h"

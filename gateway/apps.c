#include "gateway/apps.h"

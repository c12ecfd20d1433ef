#include "gateway/supervisor.h"

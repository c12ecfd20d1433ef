#include "gateway/privileges.h"

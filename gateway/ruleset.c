#include "gateway/ruleset.h"

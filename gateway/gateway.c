#include "gateway/command.h"

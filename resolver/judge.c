#include "resolver/judge.h"

#include "resolver/listener.h"

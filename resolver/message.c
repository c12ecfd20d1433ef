#include "resolver/message.h"

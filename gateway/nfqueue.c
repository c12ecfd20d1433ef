#include "gateway/nfqueue.h"

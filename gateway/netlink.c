#include "gateway/netlink.h"

#include "gateway/nft.h"

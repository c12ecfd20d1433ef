/* SPDX-License-Identifier: MIT */
#include "gateway/command.h"
int cmd_doctor(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return COMMAND_USAGE;
}

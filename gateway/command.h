/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_COMMAND_H
#define SLUICE_GATEWAY_COMMAND_H

/* Exit status of every command. */
enum { COMMAND_OK = 0, COMMAND_NO = 1, COMMAND_USAGE = 2 };

/* One client command: one row in main.c's table, one file cmd_NAME.c. argv[0] is the command's name; options are read with getopt_long().
 */
struct command {
	const char *name;
	const char *arguments; /* as in the usage line */
	const char *summary;
	int (*run)(int argc, char **argv);
};

int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_init(int argc, char **argv);
int cmd_lint(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_idle(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_suggest(int argc, char **argv);
int cmd_log(int argc, char **argv);
int cmd_stats(int argc, char **argv);

#endif

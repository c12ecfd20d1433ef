/* SPDX-License-Identifier: MIT */
/* Which files a worker needs, and what the log says of its confinement. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gateway/confine.h"
#include "gateway/gateway.h"

/*
 * Read-only for everybody:
 * /proc: our own figures, settings of the network namespace, the queue's counters. Not /proc/self: its inode may be made anew.
 * /run/secrets: where Docker mounts secrets, whose names a reload may bring.
 * The others: certificate authorities as OpenSSL and libcurl look for them.
 */
static const char *const readable[] = {
	"/proc",
	"/run/secrets",
	CONFIG_RESOLV_CONF,
	"/etc/ssl",
	"/usr/lib/ssl",
	"/usr/share/ca-certificates",
	"/usr/local/share/ca-certificates",
	"/dev/urandom",
};

/* Policy files that are links lead elsewhere. */
static void allow_links(struct confine_files *files, const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	char name[PATH_MAX];

	if (directory == NULL)
		return;
	while ((entry = readdir(directory)) != NULL) {
		if (entry->d_name[0] != '.' && entry->d_type == DT_LNK &&
		    snprintf(name, sizeof(name), "%s/%s", path, entry->d_name) < (int)sizeof(name))
			confine_files_allow_around(files, name);
	}
	closedir(directory);
}

static void allow_policy(struct confine_files *files, const struct gateway *gateway)
{
	const struct policy *policy = gateway->policy;
	const char *path = gateway->path != NULL ? gateway->path : CONFIG_DEFAULT_PATH;
	const char *const named[] = {policy->notify.ca_file, policy->notify.token_file};

	confine_files_allow(files, path, CONFINE_READ);
	confine_files_allow_around(files, path);
	allow_links(files, path);
	for (size_t i = 0; i < policy->upstream_count; i++) {
		if (policy->upstreams[i].ca_file != NULL)
			confine_files_allow_around(files, policy->upstreams[i].ca_file);
	}
	for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++) {
		if (named[i] != NULL)
			confine_files_allow_around(files, named[i]);
	}
}

/* At the end the control socket's file is removed. */
static void allow_control(struct confine_files *files)
{
	const char *slash = strrchr(control_path(), '/');
	char *directory = slash != NULL ? strndup(control_path(), (size_t)(slash - control_path())) : NULL;

	if (directory != NULL && directory[0] != '\0')
		confine_files_allow(files, directory, CONFINE_REMOVE);
	free(directory);
}

/* Return: the ABI or -errno. */
static int limit_files(const struct gateway *gateway)
{
	struct confine_files files;
	int rc = confine_files_begin(&files);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < sizeof(readable) / sizeof(readable[0]); i++)
		confine_files_allow(&files, readable[i], CONFINE_READ);
	allow_policy(&files, gateway);
	allow_control(&files);
	if (gateway->state.directory >= 0)
		confine_files_allow(&files, state_path(), CONFINE_STATE);
	rc = confine_files_enforce(&files);
	return rc == 0 ? files.abi : rc;
}

static int fail(const struct gateway *gateway, int rc)
{
	log_say(gateway->log, LOG_ERROR, "the worker cannot be confined: %s; it does not run without", strerror(-rc));
	return rc;
}

/* For want of something: it would go on as if the kernel had no Landlock. */
static bool is_passing(int rc)
{
	return rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE;
}

int confine_worker_start(const struct gateway *gateway)
{
	int rc = confine_calls(CONFINE_WORKER);

	if (rc == -ENOTSUP && CONFINE_BUILT)
		log_say(gateway->log, LOG_WARNING, "system calls are not limited: the kernel has no filters for them");
	return rc == 0 || rc == -ENOTSUP ? 0 : fail(gateway, rc);
}

int confine_worker_loop(const struct gateway *gateway)
{
	int abi = limit_files(gateway);
	int rc = is_passing(abi) ? abi : confine_calls(CONFINE_LOOP);

	if (rc != 0 && rc != -ENOTSUP)
		return fail(gateway, rc);
	if (!CONFINE_BUILT)
		log_say(gateway->log, LOG_WARNING, "not confined: this build has sanitizers");
	else if (abi < 0)
		log_say(gateway->log, LOG_WARNING, "confined: system calls %s, files not: %s", rc == 0 ? "yes" : "no",
			confine_landlock_missing(abi));
	else
		log_say(gateway->log, LOG_INFO, "confined: system calls %s, files yes (Landlock, ABI %d)", rc == 0 ? "yes" : "no", abi);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Privileges: CAP_NET_ADMIN and nothing else.
 *
 * Three ways to be started (docs/architecture.md, "Privileges"):
 * - a non-root user and a file capability on the binary: the image. The permitted set then holds NET_ADMIN.
 * - root without CAP_SETUID: `user: "0"` with `cap_drop: [ALL]`, for engines that force no-new-privileges, which disables file
 *   capabilities. The user cannot be changed; root without capabilities owns files but may do little else.
 * - root with everything: a terminal, a lab. We become PRIVILEGES_USER and drop the rest.
 *
 * NET_ADMIN is kept because every grant, every rule and every verdict needs it. It is kept in the supervisor as well: a forked worker
 * inherits it, an executed one would lose the file capability once no_new_privs is set.
 */
#include "gateway/privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int explain_missing(char *error, size_t size)
{
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
		snprintf(error, size,
			 "CAP_NET_ADMIN is missing: no-new-privileges disables the capability of the binary; remove "
			 "`security_opt: [no-new-privileges]` from the gateway service, or run it with `user: \"0\"` and `cap_add: "
			 "[NET_ADMIN]`");
	else
		snprintf(error, size, "CAP_NET_ADMIN is missing: write `cap_add: [NET_ADMIN]` into the gateway service");
	return -EPERM;
}

/* The bounding set goes too where we may: nothing that is executed later could gain anything. */
static capng_flags_t bounding_flag(void)
{
	return capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) ? CAPNG_CLEAR_BOUNDING : CAPNG_NO_FLAG;
}

static int keep_net_admin(void)
{
	bool change =
		geteuid() == 0 && capng_have_capability(CAPNG_EFFECTIVE, CAP_SETUID) && capng_have_capability(CAPNG_EFFECTIVE, CAP_SETGID);
	capng_flags_t bounding = bounding_flag();

	capng_clear(CAPNG_SELECT_BOTH);
	capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN);
	if (change)
		return capng_change_id(PRIVILEGES_USER, PRIVILEGES_USER, (capng_flags_t)(CAPNG_DROP_SUPP_GRP | bounding)) == 0 ? 0 : -EPERM;
	if (bounding != CAPNG_NO_FLAG && capng_apply(CAPNG_SELECT_BOUNDS) != 0)
		return -EPERM;
	return capng_apply(CAPNG_SELECT_CAPS) == 0 ? 0 : -EPERM;
}

int privileges_drop(char *error, size_t error_size)
{
	capng_clear(CAPNG_SELECT_BOTH);
	if (capng_get_caps_process() != 0) {
		snprintf(error, error_size, "capabilities cannot be read: %s", strerror(errno));
		return -errno;
	}
	if (!capng_have_capability(CAPNG_PERMITTED, CAP_NET_ADMIN))
		return explain_missing(error, error_size);
	if (keep_net_admin() != 0) {
		snprintf(error, error_size, "capabilities cannot be dropped: %s", strerror(errno));
		return -EPERM;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
		snprintf(error, error_size, "no_new_privs cannot be set: %s", strerror(errno));
		return -errno;
	}
	return 0;
}

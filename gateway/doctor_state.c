/* SPDX-License-Identifier: MIT */
/* What outlives the container, and what the running gateway noticed. */
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "gateway/doctor.h"
#include "gateway/state.h"
#include "gateway/terminal.h"

#define SPACE_LOW (16 * 1024 * 1024) /* bytes; several times what the gateway writes there */

#ifndef OVERLAYFS_SUPER_MAGIC
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#endif

static const char volume_cure[] =
	"a recreated gateway then knows the addresses that apps have, and what was denied; add to the gateway service: "
	"volumes: [\"state:" STATE_PATH "\"], and at the end of the file: volumes: {state: }";

/* Does it go with the container? */
static const char *find_volatile(const char *path)
{
	struct statfs info;

	if (statfs(path, &info) != 0)
		return NULL;
	switch ((unsigned long)info.f_type) {
	case OVERLAYFS_SUPER_MAGIC: return "in the container's own layer, which goes with it";
	case TMPFS_MAGIC:
	case RAMFS_MAGIC: return "in memory";
	default: return NULL;
	}
}

static void report_space(struct doctor *doctor, const char *path)
{
	char text[TERMINAL_NUMBER_MAX];
	struct statvfs info;
	uint64_t space;

	if (statvfs(path, &info) != 0) {
		doctor_say(doctor, DOCTOR_WARNING, "state", NULL, "%s: %s", path, strerror(errno));
		return;
	}
	space = (uint64_t)info.f_bavail * info.f_frsize;
	terminal_bytes(space, text);
	if (space < SPACE_LOW || (info.f_files > 0 && info.f_favail == 0))
		doctor_say(doctor, DOCTOR_WARNING, "state", "make room on the disk of that volume: what cannot be written is not kept",
			   "%s: %s and %llu files are free", path, text, (unsigned long long)info.f_favail);
	else
		doctor_say(doctor, DOCTOR_OK, "state", NULL, "%s can be written, %s are free", path, text);
}

void doctor_state(struct doctor *doctor)
{
	const char *path = state_path(), *reason;
	struct stat info;
	char cure[DOCTOR_TEXT_MAX];

	if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
		doctor_say(doctor, DOCTOR_WARNING, "state", volume_cure, "%s: there is no such directory: nothing outlives the container",
			   path);
		return;
	}
	if (access(path, R_OK | W_OK | X_OK) != 0) {
		snprintf(cure, sizeof(cure), "a volume that user %u may write has to be there; a new one has the right owner",
			 (unsigned int)geteuid());
		doctor_say(doctor, DOCTOR_WARNING, "state", cure, "%s: %s: nothing outlives the container", path, strerror(errno));
		return;
	}
	reason = find_volatile(path);
	if (reason)
		doctor_say(doctor, DOCTOR_WARNING, "state", volume_cure, "%s is not on a volume but %s", path, reason);
	else
		report_space(doctor, path);
}

void doctor_strangers(struct doctor *doctor, const json_t *health)
{
	const json_t *list = json_object_get(health, "strangers");
	json_t *stranger;
	size_t index;

	if (!json_is_array(list))
		return;
	json_array_foreach(list, index, stranger)
	{
		const char *network = json_string_value(json_object_get(stranger, "network"));
		const char *source = json_string_value(json_object_get(stranger, "src"));
		const char *app = json_string_value(json_object_get(stranger, "app"));
		const char *server = json_string_value(json_object_get(stranger, "dns"));
		char cure[DOCTOR_TEXT_MAX];

		snprintf(cure, sizeof(cure), "if it should use names, its service lacks the line: dns: %s", server ? server : "?");
		doctor_say(doctor, DOCTOR_WARNING, "dns", cure,
			   "network %s: %s%s%s%s uses addresses that no answer showed, and never asked this gateway for a name",
			   network ? network : "?", app ? app : "", app ? " (" : "", source ? source : "?", app ? ")" : "");
	}
	if (json_array_size(list) == 0)
		doctor_say(doctor, DOCTOR_OK, "dns", NULL, "the gateway has seen no app that uses addresses without asking it for names");
}

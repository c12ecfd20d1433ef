/* SPDX-License-Identifier: MIT */
#include "gateway/report/follow.h"

#include <stdlib.h>

/* A client that wants decisions. Lives as long as its stream. */
struct follow {
	struct reports *reports;
	struct control_stream *stream; /* NULL before the answer */
	struct reports_listener listener;
	size_t lines;
	bool denied_only, follows;
};

static void on_recent(void *context, const char *json, size_t size)
{
	const struct follow *follow = context;

	control_send(follow->stream, json, size);
}

static void on_line(void *context, bool denied, const char *json, size_t size)
{
	const struct follow *follow = context;

	if (denied || !follow->denied_only)
		control_send(follow->stream, json, size);
}

static void begin(void *context, struct control_stream *stream)
{
	struct follow *follow = context;

	follow->stream = stream;
	recent_each(reports_recent(follow->reports), follow->lines, follow->denied_only, on_recent, follow);
	if (follow->follows)
		reports_listen(follow->reports, &follow->listener);
	else
		control_finish(stream);
}

static void ended(void *context)
{
	struct follow *follow = context;

	reports_unlisten(&follow->listener);
	free(follow);
}

json_t *follow_answer(struct reports *reports, const json_t *request, struct control_stream *stream)
{
	json_int_t lines = json_integer_value(json_object_get(request, "lines"));
	struct follow *follow = calloc(1, sizeof(*follow));

	if (follow == NULL)
		return json_pack("{s:b, s:s}", "ok", 0, "error", "out of memory");
	follow->reports = reports;
	follow->listener = (struct reports_listener){.line = on_line, .context = follow};
	follow->lines = lines < 0 ? 0 : (size_t)lines;
	if (follow->lines > FOLLOW_LINES_MAX)
		follow->lines = FOLLOW_LINES_MAX;
	follow->denied_only = json_is_true(json_object_get(request, "denied"));
	follow->follows = json_is_true(json_object_get(request, "follow"));
	control_follow(stream, &(struct control_follower){.begin = begin, .ended = ended, .context = follow});
	return json_pack("{s:b}", "ok", 1);
}

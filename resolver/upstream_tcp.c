/* SPDX-License-Identifier: MIT */
/*
 * One question to one server over TCP, after it said TC over UDP: connect, write, read one message, close. The lookup's own deadline
 * applies; there is no timer here. At most UPSTREAM_TCP_MAX at once.
 */

#include "resolver/upstream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct upstream_tcp {
	uv_tcp_t handle;
	uv_connect_t connect;
	uv_write_t write;
	struct upstream *upstream;
	struct lookup *lookup; /* NULL: closing */
	unsigned int index;    /* of the server in the lookup */
	size_t query_size;
	uint8_t query[UPSTREAM_FRAMED_MAX];
	struct upstream_frame frame;
	struct upstream_tcp *prev, *next;
};

static void on_closed(uv_handle_t *handle)
{
	struct upstream_tcp *tcp = handle->data;

	upstream_handle_closed(tcp->upstream);
	upstream_frame_reset(&tcp->frame);
	free(tcp);
}

void upstream_tcp_abandon(struct upstream_tcp *tcp)
{
	tcp->lookup->tcp = NULL;
	tcp->lookup = NULL;
	DL_DELETE(tcp->upstream->tcp, tcp);
	tcp->upstream->tcp_count--;
	uv_close((uv_handle_t *)&tcp->handle, on_closed);
}

static void finish(struct upstream_tcp *tcp, struct answer *answer)
{
	struct lookup *lookup = tcp->lookup;

	upstream_tcp_abandon(tcp);
	upstream_answered_stream(lookup, tcp->upstream, tcp->index, answer);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
	struct upstream_tcp *tcp = handle->data;
	size_t size;
	void *room = upstream_frame_room(&tcp->frame, &size);

	(void)suggested;
	*out = uv_buf_init(room, (unsigned int)size);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
	struct upstream_tcp *tcp = stream->data;
	int state;

	(void)buffer;
	if (!tcp->lookup || !size)
		return;
	if (size < 0) {
		finish(tcp, NULL);
		return;
	}
	state = upstream_frame_filled(&tcp->frame, (size_t)size);
	if (state < 0)
		finish(tcp, NULL);
	else if (state > 0)
		finish(tcp, message_parse_answer(tcp->frame.wire, tcp->frame.expected, tcp->query + UPSTREAM_PREFIX, tcp->query_size));
}

static void on_written(uv_write_t *request, int status)
{
	struct upstream_tcp *tcp = request->data;

	if (tcp->lookup && status)
		finish(tcp, NULL);
}

static void on_connected(uv_connect_t *request, int status)
{
	struct upstream_tcp *tcp = request->data;
	uv_buf_t buffer;

	if (!tcp->lookup)
		return;
	buffer = uv_buf_init((char *)tcp->query, (unsigned int)(UPSTREAM_PREFIX + tcp->query_size));
	if (status || uv_write(&tcp->write, (uv_stream_t *)&tcp->handle, &buffer, 1, on_written) ||
	    uv_read_start((uv_stream_t *)&tcp->handle, on_allocate, on_read))
		finish(tcp, NULL);
}

static bool build_query(struct upstream_tcp *tcp, const struct cache_key *key)
{
	uint16_t id;

	if (upstream_random(tcp->upstream, &id, sizeof(id)))
		return false;
	tcp->query_size = upstream_frame_query(key, id, 0, tcp->query);
	return tcp->query_size;
}

static int tcp_start(struct upstream_tcp *tcp, const struct upstream_server *server)
{
	struct sockaddr_storage sa;

	address_to_sockaddr(&server->address, server->port, &sa);
	tcp->handle.data = tcp->connect.data = tcp->write.data = tcp;
	return uv_tcp_connect(&tcp->connect, &tcp->handle, (const struct sockaddr *)&sa, on_connected);
}

int upstream_tcp_ask(struct upstream *upstream, struct lookup *lookup, unsigned int index)
{
	struct upstream_tcp *tcp;
	int error;

	if (lookup->tcp)
		upstream_tcp_abandon(lookup->tcp);
	if (upstream->tcp_count >= UPSTREAM_TCP_MAX)
		return -EBUSY;
	tcp = calloc(1, sizeof(*tcp));
	if (!tcp)
		return -ENOMEM;
	tcp->upstream = upstream;
	tcp->index = index;
	if (!build_query(tcp, &lookup->key) || uv_tcp_init(upstream->loop, &tcp->handle)) {
		free(tcp);
		return -ENOMEM;
	}
	tcp->lookup = lookup;
	lookup->tcp = tcp;
	lookup->tcp_index = index;
	DL_APPEND(upstream->tcp, tcp);
	upstream->tcp_count++;
	upstream->open_handles++;
	upstream->counters.tcp++;
	error = tcp_start(tcp, &lookup->group->servers[index]);
	if (error)
		upstream_tcp_abandon(tcp);
	return error;
}

void upstream_tcp_close(struct upstream *upstream)
{
	struct upstream_tcp *tcp, *next;

	DL_FOREACH_SAFE (upstream->tcp, tcp, next)
		upstream_tcp_abandon(tcp);
}

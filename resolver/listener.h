/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_LISTENER_H
#define SLUICE_RESOLVER_LISTENER_H

/*
 * Listeners: messages in, replies out. Nothing is judged here. UDP is read and written in batches (recvmmsg, sendmmsg); TCP
 * is RFC 7766: several questions per connection, replies in any order, idle connections end after LISTENER_TCP_IDLE_MS.
 */

#include <uv.h>

#include "common/address.h"

#define LISTENER_BATCH 64	    /* datagrams taken from a socket at once */
#define LISTENER_TCP_MAX 128	    /* open TCP connections per listener; the oldest idle one makes room */
#define LISTENER_TCP_PENDING_MAX 32 /* questions in progress per connection; then reading stops */
#define LISTENER_TCP_IDLE_MS 10000

/* Where a reply goes. A TCP connection that is gone in the meantime is noticed by its serial number. */
struct client {
	uint16_t network;
	uint8_t protocol; /* IPPROTO_UDP or IPPROTO_TCP */
	struct address address;
	uint16_t port;
	void *listener;	  /* struct listener_udp or listener_tcp */
	uint64_t connection; /* TCP: serial number */
};

/* A message has come in; @wire is valid during the call. */
typedef void (*listener_receive)(void *context, const struct client *client, const uint8_t *wire, size_t size);

struct listener_udp;
struct listener_tcp;

/** listener_udp_new() / listener_tcp_new() - Bind @address port @port. Return: 0 with @out set, or -errno. */
int listener_udp_new(uv_loop_t *loop, uint16_t network, const struct address *address, uint16_t port, listener_receive receive, void *context,
		     struct listener_udp **out);
int listener_tcp_new(uv_loop_t *loop, uint16_t network, const struct address *address, uint16_t port, listener_receive receive, void *context,
		     struct listener_tcp **out);

/** listener_reply() - Queue a reply (copied); UDP replies leave with listener_udp_flush(), TCP ones at once. False: it could not be queued. */
bool listener_reply(const struct client *client, const uint8_t *wire, size_t size);
/** listener_udp_flush() - Send what is queued. */
void listener_udp_flush(struct listener_udp *listener);
void listener_udp_close(struct listener_udp *listener);
void listener_tcp_close(struct listener_tcp *listener);

#endif

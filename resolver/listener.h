/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_LISTENER_H
#define SLUICE_RESOLVER_LISTENER_H

/*
 * Listeners: messages in, replies out. Nothing is judged here. UDP is read and written in batches (recvmmsg, sendmmsg); TCP
 * is RFC 7766: several questions per connection, replies in any order, idle connections end after LISTENER_TCP_IDLE_MS.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/address.h"

#define LISTENER_BATCH              64      /* datagrams taken from a socket at once */
#define LISTENER_PRESSED_MAX        1024    /* datagrams taken at once when more wait than half of what the socket holds ... */
#define LISTENER_PRESSED_SERVED     256     /* ... of which about so many are served, of each source the same number */
#define LISTENER_TCP_MAX            128     /* open TCP connections per listener; the oldest idle one makes room */
#define LISTENER_TCP_SOURCE_MAX     32      /* of them from one address */
#define LISTENER_TCP_PENDING_MAX    32      /* questions in progress per connection; then reading stops */
#define LISTENER_TCP_TURN           64      /* questions that a listener hands on in a turn of the loop ... */
#define LISTENER_TCP_EACH           4       /* ... so many of one connection, before the next one has its turn */
#define LISTENER_TCP_IDLE_MS        10000   /* without a whole question or a reply that was taken */
#define LISTENER_TCP_QUESTION_MAX   4096    /* octets of one question; a longer one ends the connection */
#define LISTENER_TCP_UNSENT_MAX     262144  /* octets of replies that the client has not taken; more end the connection */
#define LISTENER_TCP_UNSENT_ALL_MAX 4194304 /* the same of all connections of a listener, of which each has a share (shares.h) */

/*
 * Where a reply goes. Every client that a message came from is owed exactly one listener_reply(). A TCP connection that is gone
 * in the meantime is noticed by its serial number; a listener that is closed must be forgotten by whoever keeps clients.
 */
struct client {
	uint16_t network;
	uint8_t protocol; /* IPPROTO_UDP or IPPROTO_TCP */
	struct address address;
	uint16_t port;
	void *listener;      /* struct listener_udp or listener_tcp; NULL: it was closed */
	uint64_t connection; /* TCP: serial number */
};

/* A message has come in; @wire is valid during the call. */
typedef void (*listener_receive)(void *context, const struct client *client, const uint8_t *wire, size_t size);

/*
 * Who uses a listener. `dropped` counts messages that could not be taken or delivered, `crowded` those that were dropped because their
 * source sent more than others while there was not enough time for all, and what the kernel dropped for want of room meanwhile.
 */
struct listener_user {
	uint16_t network;
	listener_receive receive;
	void *context;
	uint64_t *dropped, *crowded;
	struct address *crowded_by; /* who had sent most, the last time */
};

struct listener_udp;
struct listener_tcp;

/** listener_bind() - A non-blocking socket bound to exactly @address port @port, for the two below. Return: descriptor or -errno. */
int listener_bind(int type, const struct address *address, uint16_t port);

/** listener_udp_new() / listener_tcp_new() - Bind @address port @port; @user is copied. Return: 0 with @out set, or -errno. */
int listener_udp_new(uv_loop_t *loop, const struct address *address, uint16_t port, const struct listener_user *user,
		     struct listener_udp **out);
int listener_tcp_new(uv_loop_t *loop, const struct address *address, uint16_t port, const struct listener_user *user,
		     struct listener_tcp **out);

/**
 * listener_reply() - Queue a reply (copied); UDP replies leave with listener_udp_flush(), TCP ones at once
 * @size:	0: there will be no reply
 * Return: false when it could not be queued (counted).
 */
bool listener_reply(const struct client *client, const uint8_t *wire, size_t size);
bool listener_udp_reply(struct listener_udp *listener, const struct client *client, const uint8_t *wire, size_t size);
bool listener_tcp_reply(struct listener_tcp *listener, const struct client *client, const uint8_t *wire, size_t size);

/** listener_udp_receive() - Take one batch, if there is anything, without waiting for the loop. */
void listener_udp_receive(struct listener_udp *listener);

/** listener_udp_fd() - Its socket, to be polled only. */
int listener_udp_fd(const struct listener_udp *listener);

/** listener_udp_flush() - Send what is queued, of all listeners. */
void listener_udp_flush(void);

/** listener_udp_close() / listener_tcp_close() - Release the address at once; memory goes when the loop has run the close callbacks. */
void listener_udp_close(struct listener_udp *listener);
void listener_tcp_close(struct listener_tcp *listener);

#endif

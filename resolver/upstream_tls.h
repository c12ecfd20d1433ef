/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_RESOLVER_UPSTREAM_TLS_H
#define SLUICE_RESOLVER_UPSTREAM_TLS_H

/*
 * TLS as a machine of octets, for DNS over TLS: what came from the server goes in, what is to be sent comes out, and in between are
 * plain octets. The only user of libssl; it has no socket, clock or log.
 *
 * RFC 7858 with the strict profile of RFC 8310: the server must show a certificate for the name in the policy, issued by an authority we
 * trust. TLS 1.2 at least.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define UPSTREAM_TLS_REASON_MAX 320 /* octets of upstream_tls_reason(), with NUL */

struct upstream_tls_context; /* whom we trust: certificate authorities */
struct upstream_tls_server;  /* a server as TLS sees it: its name, and the session of last time */
struct upstream_tls;         /* one connection */

/** upstream_tls_check_roots() - Are these certificates (PEM)? Return: 0, or -EINVAL or -ENOMEM with @error. */
int upstream_tls_check_roots(const char *pem, char *error, size_t error_size);

/**
 * upstream_tls_context_new() - Load certificate authorities
 * @pem:	the only ones to trust; NULL: those of the system, where libssl looks for them
 * Return: owned by the caller; NULL when out of memory, or when @pem is not what upstream_tls_check_roots() accepts.
 */
struct upstream_tls_context *upstream_tls_context_new(const char *pem);
void upstream_tls_context_free(struct upstream_tls_context *context);

/** upstream_tls_server_new() - @context must outlive it; @name is copied. Return: owned by the caller, NULL: out of memory. */
struct upstream_tls_server *upstream_tls_server_new(struct upstream_tls_context *context, const char *name);
void upstream_tls_server_free(struct upstream_tls_server *server);

/** upstream_tls_new() - A connection to a server, which must outlive it; it resumes the last one's session if it can. NULL: no memory. */
struct upstream_tls *upstream_tls_new(struct upstream_tls_server *server);
void upstream_tls_free(struct upstream_tls *tls);

/** upstream_tls_received() - Octets have come from the server. Return: 0 or -ENOMEM. */
int upstream_tls_received(struct upstream_tls *tls, const void *octets, size_t size);

/** upstream_tls_to_send() - Take octets that are to be sent to the server. Return: how many; 0: there are none. */
size_t upstream_tls_to_send(struct upstream_tls *tls, void *out, size_t size);

/**
 * upstream_tls_handshake() - Begin or go on
 * Return: 0: done, the server is who it should be; -EAGAIN: more has to come; -EKEYREJECTED: its certificate is not accepted; -EPROTO.
 */
int upstream_tls_handshake(struct upstream_tls *tls);

/** upstream_tls_resumed() - Was an earlier session resumed? After the handshake. */
bool upstream_tls_resumed(const struct upstream_tls *tls);

/** upstream_tls_read() - Return: octets; 0: the server has ended the connection; -EAGAIN: more has to come; -EPROTO. */
ssize_t upstream_tls_read(struct upstream_tls *tls, void *out, size_t size);

/** upstream_tls_write() - After the handshake. Return: 0 or -EPROTO. */
int upstream_tls_write(struct upstream_tls *tls, const void *octets, size_t size);

/** upstream_tls_end() - Nothing more will be written. */
void upstream_tls_end(struct upstream_tls *tls);

/** upstream_tls_reason() - What went wrong, and what to do about it, after -EKEYREJECTED or -EPROTO of the handshake. Return: @out. */
const char *upstream_tls_reason(const struct upstream_tls *tls, char out[static UPSTREAM_TLS_REASON_MAX]);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * One HTTP request at a time.
 *
 * Theory of operation: libcurl's multi interface says which sockets to watch and when to wake it; the loop does so and tells it what
 * happened. Addresses are given (CURLOPT_RESOLVE), so there is nothing to be looked up, which libcurl would do in a thread. Each request
 * has a connection of its own, because the kernel is open for it no longer than it lasts; the certificate authorities are kept with the
 * multi handle.
 */
#include "gateway/report/notify_sender.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX  4608 /* octets of "Authorization: Bearer TOKEN" */
#define RESOLVE_MAX 1024

struct notify_sender {
	uv_loop_t *loop;
	CURLM *multi; /* owned */
	uv_timer_t timer;
	CURL *easy;                         /* owned: the request; NULL: none */
	struct curl_slist *headers, *hosts; /* owned: of the request */
	bool has_ca;
	size_t received; /* octets of the answer */
	char error[CURL_ERROR_SIZE];
	notify_sent sent;
	void *context;
	bool closing;
};

static void check_done(struct notify_sender *sender);

static void act(struct notify_sender *sender, curl_socket_t fd, int events)
{
	int running;

	if (!sender->easy)
		return;
	(void)curl_multi_socket_action(sender->multi, fd, events, &running);
	check_done(sender);
}

static void on_timer(uv_timer_t *timer)
{
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* CURLMOPT_TIMERFUNCTION */
static int set_timer(CURLM *multi, long timeout_ms, void *context)
{
	struct notify_sender *sender = context;

	(void)multi;
	if (sender->closing || timeout_ms < 0)
		uv_timer_stop(&sender->timer);
	else
		uv_timer_start(&sender->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct notify_sender *sender = poll->data;
	uv_os_fd_t fd;
	int what = 0;

	if (uv_fileno((const uv_handle_t *)poll, &fd) != 0)
		return;
	/* libuv does not watch a socket any more that has an error; libcurl finds out which one. */
	if (status < 0)
		what = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		what |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		what |= CURL_CSELECT_OUT;
	act(sender, fd, what);
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static uv_poll_t *watch(struct notify_sender *sender, curl_socket_t fd)
{
	uv_poll_t *poll = calloc(1, sizeof(*poll));

	if (!poll)
		return NULL;
	if (uv_poll_init(sender->loop, poll, fd) != 0) {
		free(poll);
		return NULL;
	}
	poll->data = sender;
	(void)curl_multi_assign(sender->multi, fd, poll);
	return poll;
}

/* CURLMOPT_SOCKETFUNCTION. libcurl closes a socket only after it has had it removed here. */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *assigned)
{
	struct notify_sender *sender = context;
	uv_poll_t *poll = assigned;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (!poll)
			return 0;
		(void)curl_multi_assign(sender->multi, fd, NULL);
		uv_poll_stop(poll);
		uv_close((uv_handle_t *)poll, free_handle);
		return 0;
	}
	if (!poll)
		poll = watch(sender, fd);
	if (!poll)
		return -1;
	return uv_poll_start(poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0), on_poll) == 0 ? 0
																     : -1;
}

/* CURLOPT_WRITEFUNCTION and CURLOPT_HEADERFUNCTION: nobody reads the answer, but it must end. */
static size_t count_answer(char *data, size_t size, size_t count, void *context)
{
	struct notify_sender *sender = context;

	(void)data;
	sender->received += size * count;
	return sender->received <= NOTIFY_ANSWER_MAX ? size * count : 0;
}

struct notify_sender *notify_sender_new(uv_loop_t *loop)
{
	struct notify_sender *sender;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return NULL;
	sender = calloc(1, sizeof(*sender));
	if (!sender)
		return NULL;
	sender->loop = loop;
	sender->multi = curl_multi_init();
	if (!sender->multi || uv_timer_init(loop, &sender->timer) != 0) {
		curl_multi_cleanup(sender->multi);
		free(sender);
		return NULL;
	}
	sender->timer.data = sender;
	curl_multi_setopt(sender->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(sender->multi, CURLMOPT_SOCKETDATA, sender);
	curl_multi_setopt(sender->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(sender->multi, CURLMOPT_TIMERDATA, sender);
	return sender;
}

static void release(struct notify_sender *sender)
{
	if (!sender->easy)
		return;
	curl_multi_remove_handle(sender->multi, sender->easy);
	curl_easy_cleanup(sender->easy);
	curl_slist_free_all(sender->headers);
	curl_slist_free_all(sender->hosts);
	sender->easy = NULL;
	sender->headers = sender->hosts = NULL;
}

static void explain(const struct notify_sender *sender, CURLcode code, long status, char out[static NOTIFY_CAUSE_MAX])
{
	bool reads = code == CURLE_OK || code == CURLE_WRITE_ERROR;

	if (reads && status >= 300 && status < 400)
		snprintf(out, NOTIFY_CAUSE_MAX, "HTTP status %ld: redirects are not followed, write the URL to which it leads", status);
	else if (reads && (status == 401 || status == 403))
		snprintf(out, NOTIFY_CAUSE_MAX, "HTTP status %ld: the server wants another token (notify_token_file) or another URL",
			 status);
	else if (reads && status)
		snprintf(out, NOTIFY_CAUSE_MAX, "HTTP status %ld", status);
	else
		snprintf(out, NOTIFY_CAUSE_MAX, "%s%s", sender->error[0] ? sender->error : curl_easy_strerror(code),
			 code == CURLE_PEER_FAILED_VERIFICATION && !sender->has_ca ? "; for an authority of your own write notify_ca = FILE"
										   : "");
}

static void end(struct notify_sender *sender, CURLcode code)
{
	char cause[NOTIFY_CAUSE_MAX] = "";
	long status = 0;
	bool good;

	curl_easy_getinfo(sender->easy, CURLINFO_RESPONSE_CODE, &status);
	/* An answer that is too long is an answer. */
	good = (code == CURLE_OK || (code == CURLE_WRITE_ERROR && sender->received > NOTIFY_ANSWER_MAX)) && status >= 200 && status < 300;
	if (!good)
		explain(sender, code, status, cause);
	release(sender);
	sender->sent(sender->context, good, cause);
}

static void check_done(struct notify_sender *sender)
{
	const CURLMsg *message;
	int left;

	while (sender->easy && (message = curl_multi_info_read(sender->multi, &left))) {
		if (message->msg == CURLMSG_DONE && message->easy_handle == sender->easy) {
			end(sender, message->data.result);
			return;
		}
	}
}

static bool add(struct curl_slist **list, const char *text)
{
	struct curl_slist *longer = curl_slist_append(*list, text);

	if (longer)
		*list = longer;
	return longer;
}

static bool set_headers(struct notify_sender *sender, const struct notify_post *post)
{
	char line[HEADER_MAX];
	bool good = add(&sender->headers, post->title ? "Content-Type: text/plain" : "Content-Type: application/json") &&
		    add(&sender->headers, "Expect:");

	if (post->title) {
		snprintf(line, sizeof(line), "Title: %s", post->title);
		good = good && add(&sender->headers, line) && add(&sender->headers, "Priority: default") &&
		       add(&sender->headers, "Tags: no_entry");
	}
	if (post->target->token) {
		snprintf(line, sizeof(line), "Authorization: Bearer %s", post->target->token);
		good = good && add(&sender->headers, line);
		explicit_bzero(line, sizeof(line));
	}
	return good;
}

/* "ntfy.example:443:192.0.2.9,[2001:db8::9]"; nothing for an address. */
static bool set_hosts(struct notify_sender *sender, const struct notify_post *post)
{
	char text[RESOLVE_MAX], one[ADDRESS_TEXT_MAX];
	struct address literal;
	size_t used;

	if (address_parse(post->target->host, &literal))
		return true;
	used = (size_t)snprintf(text, sizeof(text), "%s:%u:", post->target->host, post->target->port);
	for (size_t i = 0; i < post->count && used + ADDRESS_TEXT_MAX + 4 < sizeof(text); i++) {
		bool ipv6 = post->addresses[i].family == AF_INET6;

		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s%s%s", i ? "," : "", ipv6 ? "[" : "",
					 address_format(&post->addresses[i], one), ipv6 ? "]" : "");
	}
	return add(&sender->hosts, text);
}

static bool set_ca(struct notify_sender *sender, const char *ca)
{
	struct curl_blob blob = {.flags = CURL_BLOB_COPY};

	sender->has_ca = ca;
	/* libcurl keeps the authorities, which take it tens of milliseconds to read, only when they come from one file. */
	if (curl_easy_setopt(sender->easy, CURLOPT_CAPATH, NULL) != CURLE_OK)
		return false;
	if (!ca)
		return true;
	blob.data = strdup(ca);
	blob.len = strlen(ca);
	if (!blob.data || curl_easy_setopt(sender->easy, CURLOPT_CAINFO_BLOB, &blob) != CURLE_OK) {
		free(blob.data);
		return false;
	}
	free(blob.data);
	return true;
}

#define SET(option, value) (curl_easy_setopt(sender->easy, CURLOPT_##option, value) == CURLE_OK)

/* What is the same for all requests. What libcurl would take from the environment or follow by itself is turned off. */
static bool set_manners(struct notify_sender *sender)
{
	return SET(NOSIGNAL, 1L) && SET(PROXY, "") && SET(FOLLOWLOCATION, 0L) && SET(PROTOCOLS_STR, "http,https") &&
	       SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) && SET(TIMEOUT_MS, (long)NOTIFY_TIMEOUT_MS) &&
	       SET(CONNECTTIMEOUT_MS, (long)NOTIFY_CONNECT_MS) && SET(FORBID_REUSE, 1L) && SET(FRESH_CONNECT, 1L) &&
	       SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) && SET(SSL_VERIFYPEER, 1L) && SET(SSL_VERIFYHOST, 2L) &&
	       SET(USERAGENT, "sluice/" SLUICE_VERSION) && SET(ERRORBUFFER, sender->error) && SET(WRITEFUNCTION, count_answer) &&
	       SET(WRITEDATA, sender) && SET(HEADERFUNCTION, count_answer) && SET(HEADERDATA, sender);
}

static bool set_post(struct notify_sender *sender, const struct notify_post *post)
{
	return SET(URL, post->target->url) && SET(POST, 1L) && SET(POSTFIELDS, post->body) &&
	       SET(POSTFIELDSIZE, (long)strlen(post->body)) && set_headers(sender, post) && SET(HTTPHEADER, sender->headers) &&
	       set_hosts(sender, post) && SET(RESOLVE, sender->hosts) && set_ca(sender, post->target->ca);
}

int notify_sender_send(struct notify_sender *sender, const struct notify_post *post, notify_sent sent, void *context)
{
	sender->easy = curl_easy_init();
	sender->received = 0;
	sender->error[0] = '\0';
	sender->sent = sent;
	sender->context = context;
	if (!sender->easy)
		return -ENOMEM;
	if (!set_manners(sender) || !set_post(sender, post) || curl_multi_add_handle(sender->multi, sender->easy) != CURLM_OK) {
		release(sender);
		return -ENOMEM;
	}
	return 0;
}

void notify_sender_cancel(struct notify_sender *sender)
{
	release(sender);
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void notify_sender_close(struct notify_sender *sender)
{
	if (!sender || sender->closing)
		return;
	sender->closing = true;
	release(sender);
	curl_multi_cleanup(sender->multi);
	uv_close((uv_handle_t *)&sender->timer, on_closed);
}

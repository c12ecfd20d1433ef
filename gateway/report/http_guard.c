/* SPDX-License-Identifier: MIT */
/* What is not answered: a Host header that somebody else may have chosen, and more than the loop has time for. Pure. */
#include <stdlib.h>
#include <string.h>

#include "common/address.h"
#include "gateway/report/http_internal.h"

#define LABEL_MAX 63 /* RFC 1035 */

static bool is_port(const char *text)
{
	return *text == '\0' || (*text == ':' && text[1 + strspn(text + 1, "0123456789")] == '\0');
}

bool http_host_is_local(const char *host)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	bool bracket = host[0] == '[';
	size_t size = strcspn(host + bracket, bracket ? "]" : ":");
	char name[ADDRESS_TEXT_MAX];
	struct address address;

	if (size == 0 || size >= sizeof(name) || (bracket && host[1 + size] != ']') || !is_port(host + size + 2 * bracket))
		return false;
	memcpy(name, host + bracket, size);
	name[size] = '\0';
	if (address_parse(name, &address))
		return bracket == (address.family == AF_INET6);
	return !bracket && size <= LABEL_MAX && name[strspn(name, letters)] == '\0';
}

bool http_budget_left(struct http_budget *budget, uint64_t now)
{
	uint64_t earned = now > budget->at ? (now - budget->at) / HTTP_SHARE : 0;

	budget->spent = budget->spent > earned ? budget->spent - earned : 0;
	budget->at = now;
	return budget->spent < HTTP_BURST_MS * 1000000ULL;
}

void http_budget_spend(struct http_budget *budget, uint64_t nanoseconds)
{
	budget->spent += nanoseconds;
}

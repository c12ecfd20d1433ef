/* SPDX-License-Identifier: MIT */
#include "gateway/flows.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

#include "common/address.h"

/* Entries found by the dump; they are removed afterwards, since removing while dumping can make the dump skip some. */
struct found {
	uint32_t mark;
	bool (*may_stay)(const struct found *found, const struct nf_conntrack *entry);
	const struct policy *policy; /* for audited_may_stay() */
	time_t now;
	const struct openings *openings; /* for inbound_may_stay() */
	struct nf_conntrack **list;      /* owned, with its entries */
	size_t count, room;
};

/* The source of the packets of one direction. */
static struct address source_of(const struct nf_conntrack *entry, enum nf_conntrack_attr ipv4, enum nf_conntrack_attr ipv6)
{
	uint8_t family = nfct_get_attr_u8(entry, ATTR_L3PROTO);
	const void *bytes = nfct_get_attr(entry, family == AF_INET ? ipv4 : ipv6);
	struct address none = {0};

	return bytes != NULL ? address_from_bytes(family, bytes) : none;
}

static bool audited_may_stay(const struct found *found, const struct nf_conntrack *entry)
{
	struct address source = source_of(entry, ATTR_ORIG_IPV4_SRC, ATTR_ORIG_IPV6_SRC);

	for (size_t i = 0; i < found->policy->network_count; i++) {
		const struct network *network = &found->policy->networks[i];

		if (prefix_contains(&network->subnet4, &source) || prefix_contains(&network->subnet6, &source))
			return policy_is_auditing(network, found->now);
	}
	return false;
}

static bool inbound_may_stay(const struct found *found, const struct nf_conntrack *entry)
{
	struct address target = source_of(entry, ATTR_REPL_IPV4_SRC, ATTR_REPL_IPV6_SRC);

	return openings_find(found->openings, nfct_get_attr_u8(entry, ATTR_ORIG_L4PROTO),
			     ntohs(nfct_get_attr_u16(entry, ATTR_ORIG_PORT_DST)), &target,
			     ntohs(nfct_get_attr_u16(entry, ATTR_REPL_PORT_SRC))) != NULL;
}

static bool is_to_end(const struct found *found, const struct nf_conntrack *entry)
{
	if (!nfct_attr_is_set(entry, ATTR_MARK) || nfct_get_attr_u32(entry, ATTR_MARK) != found->mark)
		return false;
	return !found->may_stay(found, entry);
}

static int on_entry(enum nf_conntrack_msg_type type, struct nf_conntrack *entry, void *context)
{
	struct found *found = context;

	(void)type;
	if (!is_to_end(found, entry))
		return NFCT_CB_CONTINUE;
	if (found->count == found->room) {
		size_t room = found->room * 2 + 64;
		struct nf_conntrack **list = reallocarray(found->list, room, sizeof(struct nf_conntrack *));

		if (list == NULL)
			return NFCT_CB_STOP;
		found->list = list;
		found->room = room;
	}
	found->list[found->count++] = entry;
	return NFCT_CB_STOLEN;
}

static ssize_t end_found(struct nfct_handle *handle, struct found *found)
{
	ssize_t ended = 0;

	for (size_t i = 0; i < found->count; i++) {
		if (nfct_query(handle, NFCT_Q_DESTROY, found->list[i]) == 0)
			ended++;
		nfct_destroy(found->list[i]);
	}
	free(found->list);
	return ended;
}

static ssize_t end_all(struct found *found)
{
	struct nfct_handle *handle = nfct_open(CONNTRACK, 0);
	uint32_t family = AF_UNSPEC;
	int rc;

	if (handle == NULL)
		return -errno;
	nfct_callback_register(handle, NFCT_T_ALL, on_entry, found);
	rc = nfct_query(handle, NFCT_Q_DUMP, &family) < 0 ? -errno : 0;
	nfct_callback_unregister(handle);
	if (rc == 0)
		rc = (int)end_found(handle, found);
	else
		(void)end_found(handle, found);
	nfct_close(handle);
	return rc;
}

ssize_t flows_end_audited(const struct policy *policy, time_t now, uint32_t mark)
{
	struct found found = {.mark = mark, .may_stay = audited_may_stay, .policy = policy, .now = now};

	return end_all(&found);
}

ssize_t flows_end_closed(const struct openings *openings, uint32_t mark)
{
	struct found found = {.mark = mark, .may_stay = inbound_may_stay, .openings = openings};

	return end_all(&found);
}

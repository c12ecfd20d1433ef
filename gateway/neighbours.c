/* SPDX-License-Identifier: MIT */
/*
 * IPv6 neighbours and their IPv4 addresses.
 *
 * Theory of operation
 *
 * A reading takes both neighbour tables of one interface and joins them by MAC into a sorted list of pairs, IPv6 to IPv4. The list answers
 * look-ups while it is fresh. An address that is not in it may have come since: then the interface is read once more, but not before
 * NEIGHBOURS_AGAIN_MS. All readings share one bucket, so that apps which make up sources cost no more than that. A reading that failed
 * counts as one without neighbours: it costs a name in the log.
 */
#include "gateway/neighbours.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/bucket.h"

#define REQUEST_SIZE 256
#define MAC_SIZE     6

_Static_assert(NEIGHBOURS_LINKS_MAX > NEIGHBOURS_FRESH_MS / NEIGHBOURS_READ_MS + NEIGHBOURS_READ_BURST, "no fresh reading is overwritten");

/* One row of the kernel's neighbour table. */
struct neighbour {
	uint8_t mac[MAC_SIZE];
	struct address address;
	uint64_t confirmed; /* ms ago */
};

struct table {
	unsigned int index; /* rows of other interfaces are passed over */
	size_t count;
	struct neighbour rows[NEIGHBOURS_MAX];
};

struct pair {
	struct address address6, address4;
};

/* One reading of one interface. */
struct link {
	unsigned int index; /* 0: unused */
	uint64_t read_at;
	size_t count;
	struct pair *pairs; /* owned; sorted by address6 */
};

struct neighbours {
	struct netlink *netlink;
	struct bucket bucket;
	uint64_t readings;
	struct table table4, table6; /* while an interface is read */
	struct link links[NEIGHBOURS_LINKS_MAX];
};

struct neighbours *neighbours_new(struct netlink *netlink)
{
	struct neighbours *neighbours = calloc(1, sizeof(*neighbours));

	if (neighbours)
		neighbours->netlink = netlink;
	return neighbours;
}

void neighbours_free(struct neighbours *neighbours)
{
	if (!neighbours)
		return;
	for (size_t i = 0; i < NEIGHBOURS_LINKS_MAX; i++)
		free(neighbours->links[i].pairs);
	free(neighbours);
}

uint64_t neighbours_readings(const struct neighbours *neighbours)
{
	return neighbours->readings;
}

static uint64_t confirmed_ago(const struct nda_cacheinfo *times)
{
	return (uint64_t)times->ndm_confirmed * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static int on_neighbour(const struct nlmsghdr *message, void *context)
{
	struct table *table = context;
	const struct ndmsg *fields = mnl_nlmsg_get_payload(message);
	const struct nlattr *address = NULL, *mac = NULL, *times = NULL;
	struct nlattr *attribute;
	struct neighbour *row;

	if (message->nlmsg_type != RTM_NEWNEIGH || mnl_nlmsg_get_payload_len(message) < sizeof(*fields) ||
	    (unsigned int)fields->ndm_ifindex != table->index || table->count == NEIGHBOURS_MAX)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(*fields))
	{
		if (mnl_attr_get_type(attribute) == NDA_DST)
			address = attribute;
		else if (mnl_attr_get_type(attribute) == NDA_LLADDR && mnl_attr_get_payload_len(attribute) == MAC_SIZE)
			mac = attribute;
		else if (mnl_attr_get_type(attribute) == NDA_CACHEINFO &&
			 mnl_attr_get_payload_len(attribute) >= sizeof(struct nda_cacheinfo))
			times = attribute;
	}
	if (!address || !mac || mnl_attr_get_payload_len(address) != (fields->ndm_family == AF_INET ? 4 : 16))
		return MNL_CB_OK;
	row = &table->rows[table->count++];
	memcpy(row->mac, mnl_attr_get_payload(mac), MAC_SIZE);
	row->address = address_from_bytes(fields->ndm_family, mnl_attr_get_payload(address));
	row->confirmed = times ? confirmed_ago(mnl_attr_get_payload(times)) : 0;
	return MNL_CB_OK;
}

static int read_table(struct netlink *netlink, uint8_t family, unsigned int index, struct table *table)
{
	char buffer[REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct ndmsg *fields;

	message->nlmsg_type = RTM_GETNEIGH;
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	fields = mnl_nlmsg_put_extra_header(message, sizeof(*fields));
	fields->ndm_family = family;
	mnl_attr_put_u32(message, NDA_IFINDEX, index);
	table->index = index;
	table->count = 0;
	return netlink_request(netlink, message, on_neighbour, table);
}

static int compare_macs(const void *a, const void *b)
{
	return memcmp(((const struct neighbour *)a)->mac, ((const struct neighbour *)b)->mac, MAC_SIZE);
}

static int compare_pairs(const void *a, const void *b)
{
	return address_compare(&((const struct pair *)a)->address6, &((const struct pair *)b)->address6);
}

/* Join the two tables by MAC. Return: false when out of memory. */
static bool join_tables(struct neighbours *neighbours, struct link *link)
{
	struct table *table4 = &neighbours->table4, *table6 = &neighbours->table6;

	link->pairs = calloc(table6->count + 1, sizeof(*link->pairs));
	if (!link->pairs)
		return false;
	qsort(table4->rows, table4->count, sizeof(table4->rows[0]), compare_macs);
	for (size_t i = 0; i < table6->count; i++) {
		const struct neighbour *found =
			bsearch(&table6->rows[i], table4->rows, table4->count, sizeof(table4->rows[0]), compare_macs);

		if (found)
			link->pairs[link->count++] = (struct pair){.address6 = table6->rows[i].address, .address4 = found->address};
	}
	qsort(link->pairs, link->count, sizeof(link->pairs[0]), compare_pairs);
	return true;
}

static void read_link(struct neighbours *neighbours, struct link *link, unsigned int index, uint64_t now)
{
	free(link->pairs);
	link->pairs = NULL;
	link->count = 0;
	link->index = index;
	link->read_at = now;
	neighbours->readings++;
	if (read_table(neighbours->netlink, AF_INET6, index, &neighbours->table6) == 0 &&
	    read_table(neighbours->netlink, AF_INET, index, &neighbours->table4) == 0)
		(void)join_tables(neighbours, link);
}

static const struct pair *find_pair(const struct link *link, const struct address *address6)
{
	const struct pair wanted = {.address6 = *address6};

	return link->count ? bsearch(&wanted, link->pairs, link->count, sizeof(link->pairs[0]), compare_pairs) : NULL;
}

/* The interface's reading, else the slot to make one in: an unused one or the oldest. */
static struct link *find_link(struct neighbours *neighbours, unsigned int index)
{
	struct link *oldest = &neighbours->links[0];

	for (size_t i = 0; i < NEIGHBOURS_LINKS_MAX; i++) {
		struct link *link = &neighbours->links[i];

		if (link->index == index)
			return link;
		if (link->index == 0 || (oldest->index != 0 && link->read_at < oldest->read_at))
			oldest = link;
	}
	return oldest;
}

bool neighbours_find4(struct neighbours *neighbours, unsigned int index, const struct address *address6, uint64_t now, struct address *out)
{
	struct link *link = find_link(neighbours, index);
	bool fresh = link->index == index && now - link->read_at < NEIGHBOURS_FRESH_MS;
	const struct pair *pair = fresh ? find_pair(link, address6) : NULL;

	if (!pair) {
		if (fresh && now - link->read_at < NEIGHBOURS_AGAIN_MS)
			return false;
		if (!bucket_take(&neighbours->bucket, now, NEIGHBOURS_READ_MS, NEIGHBOURS_READ_BURST))
			return false;
		read_link(neighbours, link, index, now);
		pair = find_pair(link, address6);
	}
	if (pair)
		*out = pair->address4;
	return pair != NULL;
}

bool neighbours_in(struct netlink *netlink, unsigned int index, const struct prefix *prefix, struct address *out)
{
	struct table *table = calloc(1, sizeof(*table));
	bool found = false;

	if (table && read_table(netlink, prefix->address.family, index, table) == 0) {
		for (size_t i = 0; i < table->count && !found; i++) {
			const struct neighbour *row = &table->rows[i];

			found = prefix_contains(prefix, &row->address) && row->confirmed < NEIGHBOURS_THERE_MS;
			*out = row->address;
		}
	}
	free(table);
	return found;
}

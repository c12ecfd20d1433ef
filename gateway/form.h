/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_FORM_H
#define SLUICE_GATEWAY_FORM_H

/*
 * The form of a network, as far as the gateway's interface shows it: how apps' traffic comes to us, and what that means for who can get
 * around us. docs/architecture.md, "Docker", has the forms.
 */

#include <stdbool.h>

#include "common/log.h"
#include "common/policy.h"
#include "gateway/interfaces.h"
#include "gateway/netlink.h"

#define FORM_KIND_MAX   32  /* octets of the kernel's name for a kind of link, with NUL */
#define FORM_CAVEAT_MAX 384 /* octets of form_caveat()'s text */

enum form {
	FORM_BRIDGE,  /* a veth: the other end is on a bridge of the host */
	FORM_MACVLAN, /* a macvlan: no way to the host's own IP stack */
	FORM_UNKNOWN, /* any other kind: nothing is known about other ways out */
};

struct form_look {
	enum form form;
	bool carrier;             /* something is at the other end */
	char kind[FORM_KIND_MAX]; /* as the kernel says: "veth", "macvlan"; "" when it says none */
};

/** form_look() - Ask the kernel about an interface. @netlink: NETLINK_ROUTE. Return: 0 or -errno. */
int form_look(struct netlink *netlink, unsigned int index, struct form_look *out);

/** form_name() - "bridge", "macvlan", "unknown". */
const char *form_name(enum form form);

/** form_meaning() - One phrase: what the form means for apps of this network. */
const char *form_meaning(enum form form, const struct network *network);

/**
 * form_caveat() - What about this network's form has to be changed
 * @out:	receives one line that says what is wrong and what to do
 * Return: false when there is nothing to say.
 */
bool form_caveat(const struct form_look *look, const struct network *network, char out[static FORM_CAVEAT_MAX]);

/** form_log() - One line about the form of each network whose interface is there, and one more where something has to be changed. */
void form_log(struct interfaces *interfaces, const struct policy *policy, struct log *log);

#endif

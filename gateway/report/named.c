/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a decision is copied and waits for apps.c to say which container it is about; when NAMED_WAITING_MAX wait, further
 * ones are told without a name, and no neighbour table is read for them.
 */
#include "gateway/report/named.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/neighbours.h"

struct named {
	uv_loop_t *loop;
	struct reports *reports;
	struct apps *apps;             /* owned */
	struct neighbours *neighbours; /* owned */
	size_t waiting;
};

/* What is to be called, and with what besides the decision. */
struct form {
	named_ready ready;
	void *context;
	bool logged;
};

struct waiting {
	struct named *named;
	struct form form;
	struct decision decision;
};

struct named *named_new(uv_loop_t *loop, struct reports *reports, struct interfaces *interfaces)
{
	static const struct apps_options options = {0};
	struct named *named = calloc(1, sizeof(*named));

	if (!named)
		return NULL;
	named->loop = loop;
	named->reports = reports;
	named->apps = apps_new(loop, &options);
	named->neighbours = neighbours_new(&interfaces->requests);
	if (named->apps && named->neighbours)
		return named;
	apps_close(named->apps);
	neighbours_free(named->neighbours);
	free(named);
	return NULL;
}

void named_close(struct named *named)
{
	if (!named)
		return;
	apps_close(named->apps); /* calls back for every decision */
	neighbours_free(named->neighbours);
	free(named);
}

struct apps *named_apps(struct named *named)
{
	return named->apps;
}

struct address named_asked(struct named *named, const struct network *network, const struct interface *interface,
			   const struct address *source)
{
	struct address asked = {0};

	if (!network || !network->subnet4.address.family)
		return asked;
	if (source->family == AF_INET)
		asked = *source;
	else if (source->family == AF_INET6 && interface)
		(void)neighbours_find4(named->neighbours, interface->index, source, uv_now(named->loop), &asked);
	if (!prefix_contains(&network->subnet4, &asked))
		asked.family = 0;
	return asked;
}

static void on_app(void *context, const char *name)
{
	struct waiting *waiting = context;

	snprintf(waiting->decision.app, sizeof(waiting->decision.app), "%s", name);
	waiting->named->waiting--;
	waiting->form.ready(waiting->form.context, &waiting->decision, waiting->form.logged);
	free(waiting);
}

static const struct prefix nowhere = {.length = 0};

/* A decision is a large thing, and most names are known: it is copied only when it has to wait. @asked: family 0: nobody can be asked. */
static void wait_for_app(struct named *named, const struct prefix *subnet, const struct address *asked, struct decision *decision,
			 const struct form *form)
{
	const char *name = asked->family ? apps_ready(named->apps, subnet, asked) : "";
	struct waiting *waiting = name ? NULL : malloc(sizeof(*waiting));

	if (!waiting) {
		if (name && name[0])
			snprintf(decision->app, sizeof(decision->app), "%s", name);
		form->ready(form->context, decision, form->logged);
		return;
	}
	*waiting = (struct waiting){.named = named, .form = *form, .decision = *decision};
	named->waiting++;
	apps_lookup(named->apps, subnet, asked, on_app, waiting);
}

/* No neighbour table is read for what cannot wait anyway. */
static void ask(struct named *named, const struct network *network, const struct interface *interface, struct decision *decision,
		const struct form *form, size_t max)
{
	struct address asked = {0};

	if (named->waiting < max)
		asked = named_asked(named, network, interface, &decision->source);
	wait_for_app(named, network ? &network->subnet4 : &nowhere, &asked, decision, form);
}

static void tell(void *context, const struct decision *decision, bool logged)
{
	const struct named *named = context;

	reports_tell(named->reports, decision, logged);
}

void named_tell_asked(struct named *named, const struct prefix *subnet, const struct address *asked, struct decision *decision, bool logged)
{
	const struct form form = {.ready = tell, .context = named, .logged = logged};
	bool full = named->waiting >= NAMED_WAITING_MAX;

	wait_for_app(named, subnet, full ? &nowhere.address : asked, decision, &form);
}

void named_tell(struct named *named, const struct network *network, const struct interface *interface, struct decision *decision,
		bool logged)
{
	const struct form form = {.ready = tell, .context = named, .logged = logged};

	ask(named, network, interface, decision, &form, NAMED_WAITING_MAX);
}

void named_wait(struct named *named, const struct network *network, const struct interface *interface, struct decision *decision,
		bool logged, named_ready ready, void *context)
{
	const struct form form = {.ready = ready, .context = context, .logged = logged};

	ask(named, network, interface, decision, &form, NAMED_FLOWS_MAX);
}

static void forget_name(void *context, const char *name)
{
	(void)context;
	(void)name;
}

void named_known(struct named *named, const struct network *network, const struct interface *interface, const struct address *source,
		 char out[static APPS_NAME_MAX + 1])
{
	struct address asked = named_asked(named, network, interface, source);
	const char *name = asked.family ? apps_known(named->apps, &asked) : "";

	snprintf(out, APPS_NAME_MAX + 1, "%s", name ? name : "");
	if (!name)
		apps_lookup(named->apps, &network->subnet4, &asked, forget_name, NULL);
}

/* SPDX-License-Identifier: MIT */
/* What is said about the form of a network. Which form an interface has is a matter of the kernel: tests/netns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "gateway/form.h"

static const struct prefix subnet6 = {{AF_INET6, {0xfd, 0xc9, 0, 1}}, 64};

static void ipv6_on_a_bridge_is_told_where_apps_have_a_route(void **state)
{
	const struct form_look look = {.form = FORM_BRIDGE, .carrier = true, .kind = "veth"};
	struct network network = {.name = "web"};
	char caveat[FORM_CAVEAT_MAX];

	(void)state;
	assert_false(form_caveat(&look, &network, caveat));
	network.subnet6 = subnet6;
	assert_true(form_caveat(&look, &network, caveat));
	assert_non_null(strstr(caveat, "IPv6 on a bridge network"));
	network.has_virtual_addresses = true;
	assert_false(form_caveat(&look, &network, caveat));
}

static void a_missing_carrier_and_an_unknown_form_are_told_in_any_case(void **state)
{
	const struct form_look down = {.form = FORM_BRIDGE}, unknown = {.form = FORM_UNKNOWN, .carrier = true, .kind = "tun"};
	struct network network = {.name = "web"};
	char caveat[FORM_CAVEAT_MAX];

	(void)state;
	for (int i = 0; i < 2; i++) {
		network.has_virtual_addresses = i;
		assert_true(form_caveat(&down, &network, caveat));
		assert_non_null(strstr(caveat, "no carrier"));
		assert_true(form_caveat(&unknown, &network, caveat));
		assert_non_null(strstr(caveat, "of kind 'tun'"));
	}
}

static void an_internal_network_is_right_with_virtual_addresses(void **state)
{
	struct network network = {.name = "web"};

	(void)state;
	for (enum form form = FORM_BRIDGE; form <= FORM_UNKNOWN; form++) {
		network.has_virtual_addresses = false;
		assert_null(strstr(form_meaning(form, &network), "virtual"));
		network.has_virtual_addresses = true;
		assert_non_null(strstr(form_meaning(form, &network), "virtual addresses"));
	}
	assert_non_null(strstr(form_meaning(FORM_BRIDGE, &network), "with `internal: true` apps have no route"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv6_on_a_bridge_is_told_where_apps_have_a_route),
		cmocka_unit_test(a_missing_carrier_and_an_unknown_form_are_told_in_any_case),
		cmocka_unit_test(an_internal_network_is_right_with_virtual_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

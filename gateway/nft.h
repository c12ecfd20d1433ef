/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_NFT_H
#define SLUICE_GATEWAY_NFT_H

/*
 * nf_tables in our words: a batch under construction, and one function per kind of object and expression that our rules use.
 * libnftnl is used here, in grants.c and in counters.c, and nowhere else. ruleset.c says which rules there are.
 * (The owner of this file completes it: batch, table, chain, rule, set, element, counter object, expressions.)
 */

#define NFT_TABLE "sluice" /* family inet */

#endif

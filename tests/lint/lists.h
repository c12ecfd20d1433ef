/* SPDX-License-Identifier: MIT */
/*
 * For static analysis only (./dev lint): uthash and utlist as functions that the analyzers cannot look into. They cannot follow tables and
 * lists through the macros, and report null dereferences and uses after free in every loop that empties one.
 */
#ifndef SLUICE_TESTS_LINT_LISTS_H
#define SLUICE_TESTS_LINT_LISTS_H

#include <stddef.h>
#include <utlist.h>

#include "common/hash.h"

void *lists_model_change(void *head, void *item); /* Return: the new head */
void *lists_model_find(void *head, const void *key, size_t length);
void *lists_model_next(const void *item);

#undef HASH_ADD_KEYPTR
#undef HASH_ADD
#undef HASH_DELETE
#undef HASH_DEL
#undef HASH_FIND
#undef HASH_CLEAR
#undef HASH_ITER
#define HASH_ADD_KEYPTR(hh, head, key, length, item) ((void)(key), (void)(length), (head) = lists_model_change((head), (item)))
#define HASH_ADD(hh, head, field, length, item)      ((void)(length), (head) = lists_model_change((head), (item)))
#define HASH_DELETE(hh, head, item)                  ((head) = lists_model_change((head), (item)))
#define HASH_DEL(head, item)                         ((head) = lists_model_change((head), (item)))
#define HASH_FIND(hh, head, key, length, out)        ((out) = lists_model_find((head), (key), (length)))
#define HASH_CLEAR(hh, head)                         ((void)lists_model_change((head), NULL), (head) = NULL)
#define HASH_ITER(hh, head, item, next)                                                                                                    \
	for ((item) = (head), (next) = lists_model_next(item); (item) != NULL; (item) = (next), (next) = lists_model_next(item))

#undef DL_FOREACH
#undef DL_FOREACH_SAFE
#define DL_FOREACH(head, item) for ((item) = (head); (item) != NULL; (item) = lists_model_next(item))
#define DL_FOREACH_SAFE(head, item, next)                                                                                                  \
	for ((item) = (head), (next) = lists_model_next(item); (item) != NULL; (item) = (next), (next) = lists_model_next(item))

#undef DL_APPEND
#undef DL_APPEND2
#undef DL_PREPEND
#undef DL_PREPEND2
#undef DL_DELETE
#undef DL_DELETE2
#undef LL_PREPEND
#undef LL_DELETE
#define DL_APPEND(head, item)                 ((head) = lists_model_change((head), (item)))
#define DL_APPEND2(head, item, before, after) ((head) = lists_model_change((head), (item)))
#define DL_PREPEND                            DL_APPEND
#define DL_PREPEND2                           DL_APPEND2
#define DL_DELETE                             DL_APPEND
#define DL_DELETE2                            DL_APPEND2
#define LL_PREPEND                            DL_APPEND
#define LL_DELETE                             DL_APPEND

#endif

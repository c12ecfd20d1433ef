/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_GATEWAY_REPORT_PAGE_H
#define SLUICE_GATEWAY_REPORT_PAGE_H

/* The files of the page, which are part of the program: gateway/report/page/. */

#include <stddef.h>

struct page_file {
	const char *path; /* "/page.css" */
	const char *type; /* Content-Type */
	const unsigned char *bytes;
	size_t size;
};

/** page_find() - Return: the file, or NULL. */
const struct page_file *page_find(const char *path);

#endif

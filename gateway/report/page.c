/* SPDX-License-Identifier: MIT */
#include "gateway/report/page.h"

#include <string.h>

#include "page_data.h" /* made by page/embed.py */

static const struct page_file files[] = {
	{"/", "text/html; charset=utf-8", page_html, sizeof(page_html)},
	{"/page.css", "text/css; charset=utf-8", page_css, sizeof(page_css)},
	{"/page.js", "text/javascript; charset=utf-8", page_js, sizeof(page_js)},
};

const struct page_file *page_find(const char *path)
{
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if (strcmp(files[i].path, path) == 0)
			return &files[i];
	}
	return NULL;
}

/* SPDX-License-Identifier: MIT */
struct nothing;

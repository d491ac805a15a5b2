/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

/* What a fuzz target has: called by libFuzzer (-fsanitize=fuzzer), or by run-corpus.c as a plain
 * test. It aborts when it finds something. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

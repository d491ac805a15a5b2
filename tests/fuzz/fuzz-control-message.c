/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>

#include "control-message.h"

/*
 * Whatever the bytes, decoding ends with a message or with a sentence; and what it makes a message
 * of is encoded to something that decodes to the same.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcControlMessage first, second;

	int r = ec_control_message_decode(data, size, &first, &error);
	if (r == -EOPNOTSUPP)
		return 0;
	if (r < 0) {
		g_assert_cmpint(r, ==, -EBADMSG);
		g_assert_cmpstr(error.name, ==, EC_ERROR_PROTOCOL);
		g_assert_true(ec_text_is_clean(error.message));
		return 0;
	}
	g_autoptr(GByteArray) bytes = ec_control_message_encode(&first);
	g_assert_cmpint(ec_control_message_length(bytes->data, NULL), ==, (int)bytes->len - 4);
	if (ec_control_message_decode(bytes->data + 4, bytes->len - 4, &second, &error) < 0)
		g_error("not decoded again: %s", error.message);
	g_assert_cmpmem(&first, sizeof(first), &second, sizeof(second));
	return 0;
}

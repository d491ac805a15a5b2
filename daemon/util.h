/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <assert.h>
#include <glib.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "ethercord-errors.h"

#define EC_ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

/* An outer (underlay) address. family is AF_INET, AF_INET6, or AF_UNSPEC for "none". */
typedef struct EcAddress {
	int family;
	union {
		struct in_addr v4;
		struct in6_addr v6;
		uint8_t bytes[16];
	};
} EcAddress;

/* Length in bytes of the address itself: 4, 16, or 0 for AF_UNSPEC. */
size_t ec_address_size(const EcAddress *a);
/* Numeric IPv4 or IPv6 text only, never a name: 0, or -EINVAL with *ret untouched. */
int ec_address_from_string(const char *text, EcAddress *ret);
/* Text in a caller's buffer; "" for AF_UNSPEC. Returns buffer. */
const char *ec_address_to_string(const EcAddress *a, char buffer[static INET6_ADDRSTRLEN]);
bool ec_address_equal(const EcAddress *a, const EcAddress *b);
/* One host's: neither "any", nor a group's, nor everybody's. */
bool ec_address_is_unicast(const EcAddress *a);
/* "10.0.0.1/24" or "fd00::1/64"; a missing length means the whole address. -EINVAL if neither. */
int ec_cidr_from_string(const char *text, EcAddress *ret_address, unsigned *ret_length);

/* Sets the error, once, where the cause is known, and returns the -errno that its name maps to
 * (ec_error_map below). ret_error may be NULL. */
int ec_error(sd_bus_error *ret_error, const char *name, const char *format, ...)
		G_GNUC_PRINTF(3, 4);
/* The last word of an org.ethercord1.Error name ("NoUnderlay"), for StateReason; "Failed" for a
 * name that is not ours or an unset error. */
const char *ec_error_token(const sd_bus_error *error);
/* Registers our names with libsystemd; call once in each program. */
void ec_error_map_register(void);

/* True for text fit for settings, names and sentences: valid UTF-8, no control characters. */
bool ec_text_is_clean(const char *text);
/* True for a name the kernel accepts for an interface and that needs no quoting anywhere:
 * 1-15 bytes of [A-Za-z0-9_.-], not ".", "..", "all" or "default" (net/core/dev.c dev_valid_name).
 */
bool ec_ifname_is_valid(const char *text);
/* [A-Za-z0-9][A-Za-z0-9_.-]{0,62}: names of tunnels, listeners and peers. */
bool ec_name_is_valid(const char *text);
/* How long to wait after so many failures in a row, µs: 0.2 s, doubling to 30 s. */
uint64_t ec_backoff_usec(unsigned failures);
/* Shortened at random by up to a quarter, so that many who wait for one thing do not ask at once.
 */
uint64_t ec_jitter_usec(uint64_t usec);
/* "02:00:5e:10:00:01" in a caller's buffer. Returns buffer. */
const char *ec_mac_to_string(const uint8_t mac[static 6], char buffer[static 18]);
/* Six colon separated bytes, unicast, not all zero: 0 or -EINVAL. */
int ec_mac_from_string(const char *text, uint8_t ret[static 6]);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus_message, sd_bus_message_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus, sd_bus_flush_close_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_event, sd_event_unref)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(sd_bus_error, sd_bus_error_free)

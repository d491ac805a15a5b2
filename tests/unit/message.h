/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>

/* D-Bus messages that nobody gets: written, and read again. */

/* A bus that is connected to nobody. *ret_other: to be closed after it. */
static inline sd_bus *message_bus_new(int *ret_other)
{
	sd_bus *bus = NULL;
	int fd[2];

	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), ==, 0);
	g_assert_cmpint(sd_bus_new(&bus), >=, 0);
	g_assert_cmpint(sd_bus_set_fd(bus, fd[0], fd[0]), >=, 0);
	g_assert_cmpint(sd_bus_start(bus), >=, 0);
	*ret_other = fd[1];
	return bus;
}

static inline sd_bus_message *message_new(sd_bus *bus)
{
	sd_bus_message *m = NULL;

	g_assert_cmpint(sd_bus_message_new_signal(bus, &m, "/", "org.example.Test", "Test"), >=, 0);
	return m;
}

/* To be read from now on. */
static inline void message_seal(sd_bus_message *m)
{
	static uint64_t cookie;

	g_assert_cmpint(sd_bus_message_seal(m, ++cookie, 0), >=, 0);
	g_assert_cmpint(sd_bus_message_rewind(m, true), >=, 0);
}

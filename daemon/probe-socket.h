/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <sys/uio.h>

#include "probe.h"

/*
 * The packet socket that probes of one interface cross. Its filter lets nothing else through, so
 * nothing else wakes the daemon.
 *
 * On Ethernet probes go to 01:80:c2:00:00:0e, which bridges do not forward, and a socket bound to a
 * bridge's port and this ethertype hears them whatever the port's state
 * (facts: seeds-and-peers.md §7). A bridge whose group_fwd_mask says so does forward it, and what
 * it forwards the socket does not hear: then another of that range is used.
 */

#define EC_PROBE_ETHERTYPE 0x88b5

/* What precedes a probe and counts towards the interface's MTU: nothing, or the IPv4 header. */
unsigned ec_probe_socket_header(bool ethernet);
/* A non-blocking socket; -errno. */
int ec_probe_socket_open(int ifindex, bool ethernet, sd_bus_error *ret_error);
/* How probes leave: by the packet socket, or by what `inject` does with the frame (a header and
 * what follows it; true: it is done), where the interface takes none while its carrier is off. */
typedef bool (*EcProbeInject)(const struct iovec *parts, size_t n, void *userdata);
typedef struct EcProbeWay {
	int fd;
	bool ethernet;
	uint8_t mac[6];
	uint8_t group;
	EcProbeInject inject; /* NULL: the socket */
	void *userdata;
} EcProbeWay;

/* group: last byte of the Ethernet destination, which the peer's bridge does not forward.
 * Sends a probe (with its padding, as many zeros as p->size asks). A probe that cannot be sent is a
 * lost one: nothing tells. */
void ec_probe_socket_send(const EcProbeWay *way, const EcProbe *p,
		const uint8_t key[static EC_PROBE_KEY_SIZE]);
/* The next probe, as yet unproven: its first bytes in `ret`, its whole size returned; 0: something
 * that is none; -EAGAIN: there is nothing more. */
ssize_t ec_probe_socket_receive(int fd, bool ethernet, uint8_t ret[static EC_PROBE_SIZE]);

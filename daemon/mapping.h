/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "liveness.h"

/*
 * Where a peer behind a NAT sends its data from. The kernel's tunnels do not tell; so while a peer
 * is known to be behind one, a packet socket on the underlay's device looks at UDP datagrams to our
 * data port, by a socket filter (BPF) that lets only those pass that hold one of this tunnel's
 * probes. A source address and port is believed only when the probe's HMAC is valid.
 */
typedef struct EcMapping EcMapping;

/* What stands between UDP's header and the probe. */
typedef enum EcMappingFormat {
	EC_MAPPING_GRE,   /* GRE with a key, with a sequence number or not; Ethernet */
	EC_MAPPING_VXLAN, /* VXLAN; Ethernet */
	EC_MAPPING_RAW,   /* Ethernet */
	EC_MAPPING_IP,    /* IPv4 */
} EcMappingFormat;

typedef struct EcMappingSpec {
	int ifindex;        /* of the underlay's device the datagrams arrive by */
	int family;         /* AF_INET or AF_INET6 of the outer packets */
	uint16_t data_port; /* our UDP port */
	EcMappingFormat format;
	uint32_t id; /* VNI or GRE key */
} EcMappingSpec;

/* Each time a valid probe came from another address or port than the one before. */
typedef void (*EcMoved)(EcMapping *m, const EcAddress *address, uint16_t port, void *userdata);

int ec_mapping_new(sd_event *event, const EcMappingSpec *spec, EcLiveness *liveness, EcMoved moved,
		void *userdata, EcMapping **ret, sd_bus_error *ret_error);
EcMapping *ec_mapping_free(EcMapping *m);

/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <linux/xfrm.h>

#include "netlink.h"
#include "util.h"

/*
 * IPsec in the kernel: policies and security associations (SA), read over netlink and matched as
 * the kernel matches them. All of it is pure but ec_xfrm_dump() and ec_xfrm_acquire(). Keys are not
 * kept.
 */

#define EC_XFRM_TEMPLATES 6 /* XFRM_MAX_DEPTH of the kernel */
/* The priority of our guard's own block policies, which are nobody's VPN. */
#define EC_XFRM_GUARD_PRIORITY 0x7fffffffu

typedef struct EcXfrmPolicy {
	struct xfrm_userpolicy_info info;
	struct xfrm_mark mark;
	uint32_t if_id;
	unsigned n_templates;
	struct xfrm_user_tmpl templates[EC_XFRM_TEMPLATES];
} EcXfrmPolicy;

typedef struct EcXfrmSa {
	struct xfrm_selector sel;
	struct xfrm_id id;
	xfrm_address_t saddr;
	uint64_t added; /* seconds since 1970 */
	uint32_t reqid, if_id;
	struct xfrm_mark mark;
	uint16_t family;
	uint8_t mode;
	bool usable;         /* has keys: not merely asked for */
	bool encrypts;       /* not only authenticates */
	char algorithm[64];  /* of the encryption, the kernel's name */
	uint8_t iv, icv;     /* bytes in each packet */
	uint8_t block;       /* of the cipher */
	uint8_t encap_bytes; /* of UDP or TCP around ESP, without the IP header */
} EcXfrmSa;

/* A packet, as policies see it; host byte order. */
typedef struct EcXfrmPacket {
	EcAddress source, target; /* source AF_UNSPEC: not known */
	uint8_t protocol;         /* 0: not known */
	uint16_t target_port;     /* 0: not known. The source port never is */
	uint32_t mark, if_id;
	int ifindex;
} EcXfrmPacket;

typedef struct EcXfrm {
	GArray *policies; /* EcXfrmPolicy, of type main and not per socket */
	GArray *sas;      /* EcXfrmSa, ESP only */
} EcXfrm;

EcXfrm *ec_xfrm_new(void);
EcXfrm *ec_xfrm_free(EcXfrm *x);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EcXfrm, ec_xfrm_free)

/* From NEWPOLICY, UPDPOLICY, DELPOLICY, POLEXPIRE. 1; 0 when it is none that could be a VPN's: per
 * socket, of type sub, our guard's; -EBADMSG when it is malformed. */
int ec_xfrm_policy_parse(const struct nlmsghdr *h, EcXfrmPolicy *ret);
/* From NEWSA, UPDSA. 1; 0 when it is not ESP; -EBADMSG. */
int ec_xfrm_sa_parse(const struct nlmsghdr *h, EcXfrmSa *ret);
/* Could this event change an answer? */
bool ec_xfrm_event_matters(const struct nlmsghdr *h);

/* All policies and SAs into *x, or -errno and an error; -EINTR when they changed meanwhile. */
int ec_xfrm_dump(struct nl_sock *sk, EcXfrm *x, sd_bus_error *ret_error);
/* Has the kernel ask the IKE daemon for the SAs of a policy, as a packet would. */
int ec_xfrm_acquire(struct nl_sock *sk, const EcXfrmPolicy *p);

/* Does the policy keep packets from leaving in clear: it asks for ESP? */
bool ec_xfrm_protects(const EcXfrmPolicy *p);
/* The policy that the kernel applies to the packet, or NULL. protecting: among those that protect.
 * A packet of which not all is known is taken to escape the policies that protect and to meet the
 * others. dir: XFRM_POLICY_OUT. */
const EcXfrmPolicy *ec_xfrm_policy_for(
		const EcXfrm *x, uint8_t dir, const EcXfrmPacket *packet, bool protecting);
/* The protecting inbound policy for the answers of what an outbound one covers, or NULL. */
const EcXfrmPolicy *ec_xfrm_inbound(const EcXfrm *x, const EcXfrmPolicy *out);
/* The ESP template that does not encrypt the least: the first that is not optional. */
const struct xfrm_user_tmpl *ec_xfrm_template(const EcXfrmPolicy *p);
/* The SA that serves a policy's template for a packet (NULL: for any packet), or NULL. */
const EcXfrmSa *ec_xfrm_sa_for(const EcXfrm *x, const EcXfrmPolicy *p, const EcXfrmPacket *packet);

/* Where ESP packets go: the gateway, in transport mode the peer. AF_UNSPEC when that may be any. */
EcAddress ec_xfrm_gateway(const EcXfrmPolicy *p, const EcXfrmPacket *packet);
/* The largest IP packet that fits an ESP packet of `mtu` bytes, as the kernel computes it
 * (net/xfrm/xfrm_state.c, xfrm_state_mtu()); 0 when none does. */
uint32_t ec_xfrm_mtu(const EcXfrmSa *sa, uint32_t mtu);
/* The same for a policy, whose templates may be more than the one SA. */
uint32_t ec_xfrm_policy_mtu(const EcXfrmPolicy *p, const EcXfrmSa *sa, uint32_t mtu);

/* "10.50.1.0/24" and, where the selector names them, protocol and port: "10.0.0.1/32[17/4789]". */
char *ec_xfrm_selector_text(const struct xfrm_selector *sel, bool target);
/* Unique among outbound policies of an interface identity and stable: of the selector. */
void ec_xfrm_name(const EcXfrmPolicy *p, char ret[static 96]);

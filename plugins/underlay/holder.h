/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "kernel.h"

/*
 * Which program made a TUN or TAP interface. The kernel names no such process; this finds it in
 * /proc (underlay.md §3).
 */

/* A program that is known to make VPNs. */
typedef struct EcVpnProgram {
	const char *comm;   /* as in /proc/PID/comm: 15 bytes at most */
	const char *kind;   /* of the underlay that takes its interfaces */
	const char *title;  /* "OpenVPN" */
	const char *prefix; /* of its interfaces' names; NULL: its users choose them */
} EcVpnProgram;

/* NULL when it is none. Pure. */
const EcVpnProgram *ec_vpn_program(const char *comm);
/* The running VPN program among these, NULL-terminated, that a name alone proves: of this network
 * namespace and not started by an ordinary user, who can call a process anything. NULL: none. */
const char *ec_vpn_program_runs(const char *const *comms);

/* The process of our network namespace that holds the TUN or TAP interface: the proven one, whoever
 * it is, else the one VPN program that it can be. False: nobody knows. */
bool ec_tun_holder(const char *ifname, char comm[static 32]);
/* Of the holder, if that is a VPN program: a look at every process of the system, some ms. */
const EcVpnProgram *ec_tun_holder_program(const char *ifname);

/* What was found by interface, for a kind that is asked at each event. An interface that lost its
 * holder remains whose it was until it is held again. */
typedef struct EcHolders EcHolders;
EcHolders *ec_holders_new(void);
EcHolders *ec_holders_free(EcHolders *h);
/* NULL: no TUN or TAP, or of no VPN program. */
const EcVpnProgram *ec_holders_find(EcHolders *h, const EcLink *link);

/* IFF_TUN or IFF_TAP, 0 for any other interface. */
int ec_tun_mode(const EcLink *link);

/* Pure, for the above and tests. */
typedef struct EcHolderEvidence {
	const EcVpnProgram *program; /* a process of it that may be the holder, NULL none */
	unsigned processes;          /* of that program */
	bool several;                /* processes of another program may be, too */
} EcHolderEvidence;
void ec_holder_weigh(EcHolderEvidence *e, const char *ifname, const EcVpnProgram *program);
/* Does the text of a file in fdinfo tell of that interface? */
bool ec_fdinfo_names(const char *text, const char *ifname);

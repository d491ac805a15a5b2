/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "control-message.h"
#include "encap.h"

/*
 * What two ends agree on, and how they come to it. Pure but for the file at the end: the decision
 * of design §5.2 is a function of both ends' abilities, so it is tested without a network.
 *
 * The acceptor says all that it can (WELCOME), the dialer decides (CHOOSE), the acceptor checks.
 */
typedef struct EcAgreement {
	const EcEncap *encap;      /* NULL: nothing is agreed */
	uint32_t id;               /* GRE key or VNI */
	uint16_t data_port;        /* UDP, this end receives on; 0 without UDP */
	uint16_t remote_data_port; /* UDP, the peer is reached at: its own, or its NAT's */
	EcAddress local;           /* ours that the peer dialled; AF_UNSPEC: the path's */
	EcAddress data_remote;     /* the peer's data comes from here; AF_UNSPEC: its address */
	uint32_t mtu;              /* of both interfaces, bytes */
	uint32_t size;             /* the largest packet that has to cross, bytes */
	uint32_t path_mtu;         /* the smaller of what both ends see, bytes, 0 unknown */
	uint8_t mac[6];            /* of the interface at this end */
	uint8_t group;             /* that probes to the peer go to, see EcLivenessSpec */
	bool split;                /* frames larger than the path go in pieces */
	bool joins;                /* both ends are workers: pieces are put together */
	bool lesser;               /* nothing carried full frames: size is what crosses */
	bool nat;                  /* addresses are translated between the ends */
} EcAgreement;

/* One end of the decision. */
typedef struct EcAgreementSide {
	const EcSettings *settings;
	const EcEncap *const *candidates; /* possible here on this path, best first, NULL-terminated
					   */
	EcAddress local, remote;          /* of the path */
	uint32_t path_mtu;                /* bytes, 0 unknown */
	uint32_t bridge_mtu;              /* of the bridge that is joined, bytes, 0 none */
	uint8_t mac[6];
	EcAgreement before;            /* of a cord that is still there, or no encap */
	const EcEncap *const *only;    /* of the candidates, NULL-terminated; NULL: all */
	const EcEncap *const *refused; /* by the path, in this round of trying */
	bool split;                    /* the path was found to drop fragments */
	/* Whether an interface with this id would be none of this machine's others. */
	bool (*is_free)(const EcEncap *encap, uint32_t id, uint16_t data_port, void *userdata);
	/* A UDP port of ours that no other tunnel shares with this remote: `wanted` where the kind
	 * tells its tunnels apart by more than that. */
	uint16_t (*free_port)(const EcEncap *encap, uint16_t wanted, void *userdata);
	void *userdata;
} EcAgreementSide;

/* The dialer's decision. NotSupported when the ends have no encapsulation in common, with
 * PeerUnreachable when the path refused all they have; InvalidSetting. */
int ec_agreement_choose(const EcAgreementSide *own, const EcControlMessage *welcome,
		EcAgreement *ret, sd_bus_error *ret_error);
/* The acceptor's check of a CHOOSE. Refused, InvalidSetting, NotSupported, Exists. */
int ec_agreement_accept(const EcAgreementSide *own, const EcControlMessage *choose,
		EcAgreement *ret, sd_bus_error *ret_error);
/* Our worker of that format, if the peer has one, too, and frames may go in pieces; or NULL. */
const EcEncap *ec_agreement_splitter(
		const EcAgreementSide *own, const EcControlMessage *welcome, const EcEncap *encap);
/* The UDP port to begin with: a worker that stands in for the kernel leaves it the usual one, which
 * a single tunnel of the kernel's takes for the whole machine. */
uint16_t ec_agreement_first_port(const EcEncap *const *candidates, const EcEncap *encap);
/* Whether both describe the same interface, whatever else differs. */
bool ec_agreement_same_cord(const EcAgreement *a, const EcAgreement *b);
/* The settings with what was agreed in the place of what was left open. Free it. */
EcSettings *ec_agreement_terms(const EcAgreement *a, const EcSettings *settings);

/* A cord outlives the daemon: what the next one has to know is in RUNTIME/cords/NAME. */
typedef struct EcCord {
	EcAgreement agreement;
	EcAddress remote;  /* the peer's address */
	char *listener;    /* that accepted it, or NULL */
	char *peer;        /* the peer's name, or NULL */
	int mode;          /* EcMode */
	char *interface;   /* its name */
	bool proven;       /* frames crossed */
	uint64_t instance; /* of the peer's machine */
} EcCord;
void ec_cord_done(EcCord *c);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(EcCord, ec_cord_done)
void ec_cord_save(const char *runtime_dir, const char *name, const EcCord *c);
/* Whether there was one that can be read. */
bool ec_cord_load(const char *runtime_dir, const char *name, EcCord *ret);
void ec_cord_forget(const char *runtime_dir, const char *name);
/* The names that have one; free with g_strfreev(). */
char **ec_cord_names(const char *runtime_dir);

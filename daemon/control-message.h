/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * One message of the control channel (design §5): on the wire a length (4 bytes, network order, of
 * what follows; at most EC_CONTROL_SIZE_MAX) and a GVariant a{sv}, little-endian, in normal form.
 * "type" (s) says which it is. Keys that a type does not know are ignored, keys that it needs and
 * lacks, or that have another type, make the message bad. Pure: nothing here does I/O.
 */

#define EC_CONTROL_SIZE_MAX 65536u
/* A peer whose "protocol" is larger than this is refused with a sentence; smaller minors and
 * larger ones are understood. */
#define EC_CONTROL_PROTOCOL 1u
#define EC_CONTROL_MINOR 0u

#define EC_CONTROL_NAME_MAX 64  /* names, tokens, words; bytes with the final 0 */
#define EC_CONTROL_TEXT_MAX 512 /* sentences */
#define EC_CONTROL_ENCAPS_MAX 16
#define EC_CONTROL_IDS_MAX 16

typedef enum EcControlType {
	EC_CONTROL_WELCOME, /* acceptor, at once: who it is and all that can be chosen from */
	EC_CONTROL_CHOOSE,  /* dialer: what the cord shall be; again for the next encapsulation */
	EC_CONTROL_READY,   /* acceptor: its end of what was chosen last is made */
	EC_CONTROL_PING,    /* either: are you there; answered by PONG with the same seq */
	EC_CONTROL_PONG,
	EC_CONTROL_BYE,    /* either: this end goes; error: EC_BYE_* */
	EC_CONTROL_REFUSE, /* either: no, error: a token of ethercord-errors.h, text: a sentence */
	_EC_CONTROL_TYPE_MAX,
} EcControlType;

/* Why an end says BYE ("error" of the message). */
#define EC_BYE_DOWN "down"       /* the cord was taken down: take it down at once */
#define EC_BYE_RESTART "restart" /* the daemon goes, the cord stays: carry on */
#define EC_BYE_MOVED "moved"     /* another connection of the same cord took over */

/* One encapsulation that an end can do: a(ssq) on the wire. */
typedef struct EcControlEncap {
	char name[EC_CONTROL_NAME_MAX];  /* "vxlan" */
	char plane[EC_CONTROL_NAME_MAX]; /* "kernel" or "user" */
	uint16_t data_port;              /* UDP port that this end receives on, 0: no UDP */
} EcControlEncap;

/* All members of all types, host byte order; those that a type does not have are zero. The table in
 * control-message.c says key, D-Bus type and in which types a member is needed (!) or may be. */
typedef struct EcControlMessage {
	EcControlType type;

	uint32_t protocol;              /* u  WELCOME! CHOOSE! */
	uint32_t minor;                 /* u  WELCOME  CHOOSE */
	char name[EC_CONTROL_NAME_MAX]; /* s  WELCOME! CHOOSE!: tunnel or listener */
	char peer[EC_CONTROL_NAME_MAX]; /* s  WELCOME: the name it knows the dialer by */
	uint64_t nonce;                 /* t  WELCOME! CHOOSE!: settles double dialling */
	uint64_t instance;              /* t  WELCOME! CHOOSE!: tells machines apart */
	char mode[EC_CONTROL_NAME_MAX]; /* s  CHOOSE!: word of the setting; WELCOME: the only
					      one it takes */
	bool bridged;                   /* b  WELCOME  CHOOSE: this end joins a bridge */
	EcAddress seen;                 /* s  WELCOME: the dialer's address as it arrived */
	EcAddress local;                /* s  CHOOSE: the dialer's own address; differs from
					      seen behind a NAT */
	bool any_order;                 /* b  WELCOME: its encapsulations are no preference */
	EcControlEncap encaps[EC_CONTROL_ENCAPS_MAX]; /* a(ssq) "encapsulations"  WELCOME! */
	size_t n_encaps;
	uint32_t ids[EC_CONTROL_IDS_MAX]; /* au WELCOME!: GRE keys/VNIs that are free there */
	size_t n_ids;
	char encapsulation[EC_CONTROL_NAME_MAX]; /* s CHOOSE!; WELCOME: that of the cord that is
						    still there from before, with id */
	char plane[EC_CONTROL_NAME_MAX];         /* s  CHOOSE: of the dialer */
	uint32_t id;                             /* u  CHOOSE!  WELCOME */
	uint16_t data_port;                      /* q  CHOOSE "data-port": the dialer receives on */
	uint16_t remote_data_port;               /* q  CHOOSE "remote-data-port": it sends to */
	uint32_t path_mtu;    /* u  WELCOME  CHOOSE "path-mtu" bytes, 0 unknown */
	uint32_t mtu;         /* u  CHOOSE!: of both interfaces, bytes; WELCOME:
				    what its settings ask, 0 automatic */
	uint32_t bridge_mtu;  /* u  WELCOME "bridge-mtu", 0 none */
	uint32_t probe_group; /* u  WELCOME  CHOOSE "probe-group": last byte of the destination that
				 probes to this end shall have, 2 to 15; 0: 14 */
	char full_frames[EC_CONTROL_NAME_MAX]; /* s WELCOME "full-frames": its setting */
	uint32_t size;                         /* u  CHOOSE!: bytes of the largest packet that the
						     probes have to prove, at most mtu */
	uint8_t mac[6];                        /* ay WELCOME  CHOOSE  READY: exactly 6 bytes; zero
						     where there is none */
	bool split;                            /* b  CHOOSE: frames larger than the path go in
						     pieces, see worker/split.h */
	uint32_t round;                        /* u  CHOOSE! READY!: 1, 2, ... of one channel */
	uint64_t seq;                          /* t  PING! PONG! */
	uint64_t rx_packets, tx_packets;       /* t  PING  PONG "rx-packets" "tx-packets" */
	char error[EC_CONTROL_NAME_MAX];       /* s  BYE! REFUSE! */
	char text[EC_CONTROL_TEXT_MAX];        /* s  BYE  REFUSE!: one sentence, clean text */
} EcControlMessage;

const char *ec_control_type_to_string(EcControlType type);

/* The message with its length in front, ready to be sent. Strings that are too long are cut. */
GByteArray *ec_control_message_encode(const EcControlMessage *m);
/* The length that a header of 4 bytes announces: 1 to EC_CONTROL_SIZE_MAX, or -EMSGSIZE with a
 * Protocol error. */
int ec_control_message_length(const uint8_t header[static 4], sd_bus_error *ret_error);
/* One message without its length. -EBADMSG with a Protocol error whose sentence names the key;
 * *ret is all zero then. An unknown type is -EOPNOTSUPP: to be skipped, as a newer minor's. Of a
 * WELCOME or CHOOSE of a newer protocol only type and protocol are looked at and filled in. */
int ec_control_message_decode(
		const void *data, size_t size, EcControlMessage *ret, sd_bus_error *ret_error);

/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

/*
 * Between ethercordd and ethercord-worker, on one machine: the only header that both include.
 *
 * A worker is one process that carries one tunnel's packets. Its file descriptor 3 is a connected
 * SOCK_SEQPACKET socket of the daemon's (systemd passes it there, too: Accept=yes). Each packet is
 * one of the structs below, in host byte order, with file descriptors in SCM_RIGHTS as listed.
 *
 *     daemon                                worker
 *     START   (listener, device, memory) ->        once, first
 *     CONFIGURE [socket]                 ->        as often as wanted
 *                                        <- DONE   the answer to either, with its serial
 *                                        <- EVENT  whenever something happens
 *     INJECT                             ->        a frame to be sent as if the device gave it
 *     ASK                                ->        does it hang? Answered by EVENT, HERE
 *     STOP                               ->        the worker exits, the device stays
 *
 * The connection may end: the worker carries on and accepts the next one at the listener, a bound
 * and listening SOCK_SEQPACKET unix socket. A daemon that starts connects there, gets
 *                                        <- HELLO  (device, memory, [socket])
 * and goes on with CONFIGURE. A newer connection takes the place of an older one.
 *
 * The device is an open /dev/net/tun, IFF_TAP or IFF_TUN by the format, IFF_NO_PI | IFF_VNET_HDR;
 * the worker sets TUNSETVNETHDRSZ and TUNSETOFFLOAD itself. The socket is UDP, bound, with
 * SO_BINDTODEVICE, mark, TTL, buffers and IP_MTU_DISCOVER as the daemon wants them and not
 * connected; the worker connects it to the remote and sets UDP_GRO. The memory is a memfd of
 * sizeof(EcWorkerStatistics), which the worker maps and writes, the daemon reads.
 *
 * The socket is connected when there is a remote, unless with ROAM; with VXLAN, or without a port,
 * to its address alone. Strangers' datagrams then end in the kernel, uncounted. It is never
 * disconnected, as that would undo SO_BINDTODEVICE, too: a CONFIGURE that needs that (EISCONN) must
 * bring a new socket. What an old socket still holds is passed on.
 */

#define EC_WORKER_PROTOCOL 1
#define EC_WORKER_FD 3
#define EC_WORKER_TEXT 120

typedef enum EcWorkerType {
	EC_WORKER_START = 1,
	EC_WORKER_CONFIGURE,
	EC_WORKER_STOP,
	EC_WORKER_HELLO,
	EC_WORKER_DONE,
	EC_WORKER_EVENT,
	EC_WORKER_INJECT,
	EC_WORKER_ASK, /* no more than its type */
} EcWorkerType;

typedef enum EcWorkerFormat {
	EC_WORKER_GRETAP_FOU = 1, /* GRE (RFC 2784, 2890) with Ethernet, in UDP */
	EC_WORKER_VXLAN,          /* RFC 7348 */
	EC_WORKER_RAW_UDP,        /* a bare Ethernet frame in UDP: tap2tap, QuickTun raw */
	EC_WORKER_TUN_UDP,        /* a bare IP packet in UDP: ttun */
} EcWorkerFormat;

typedef enum EcWorkerFlags {
	/* The remote is whoever sent the last acceptable datagram: asked for by `roam`, and by
	 * nobody authenticated. Without it a datagram of somebody else is dropped. */
	EC_WORKER_ROAM = 1 << 0,
	/* gretap-fou: packets are numbered, for a kernel at the other end (data-plane.md §6). */
	EC_WORKER_SEQUENCE = 1 << 1,
	/* Frames above the path MTU are sent in pieces that the peer's worker joins (split.h). */
	EC_WORKER_SPLIT = 1 << 2,
	/* The peer's worker may send pieces. */
	EC_WORKER_JOIN = 1 << 3,
	/* A packet that must not be fragmented and does not fit is answered with too-big
	 * (toobig.h). With SPLIT nothing is too big. */
	EC_WORKER_TOO_BIG = 1 << 4,
	/* Datagrams above the path MTU may leave in IP fragments; without it such frames are
	 * dropped and counted. */
	EC_WORKER_FRAGMENT = 1 << 5,
} EcWorkerFlags;

typedef struct EcWorkerStart {
	uint32_t type;    /* EC_WORKER_START */
	uint32_t version; /* EC_WORKER_PROTOCOL */
	uint32_t serial;  /* of the request; DONE has it */
	uint32_t format;  /* EcWorkerFormat, for good */
	char name[64];    /* of the tunnel */
} EcWorkerStart;

typedef struct EcWorkerConfigure {
	uint32_t type; /* EC_WORKER_CONFIGURE */
	uint32_t serial;
	uint32_t id;       /* GRE key (0: none) or VNI */
	uint32_t flags;    /* EcWorkerFlags */
	uint32_t path_mtu; /* the largest outer IP packet that the path carries whole, bytes; 0: not
			      known, nothing is split or answered */
	uint32_t reserved;
	/* Where datagrams go to and are accepted from. AF_UNSPEC: nobody yet, with ROAM the first
	 * one who comes. Port 0: of that address any port is accepted and nothing is sent, until a
	 * port is known. The same said again keeps what was learned. VXLAN: the port is only where
	 * datagrams go to; a sender's is a hash of the flow (RFC 7348 §5). */
	struct sockaddr_storage remote;
} EcWorkerConfigure;

typedef struct EcWorkerInject {
	uint32_t type;   /* EC_WORKER_INJECT; not answered */
	uint8_t frame[]; /* with its Ethernet header, if it has one; up to the packet's end */
} EcWorkerInject;

typedef struct EcWorkerDone {
	uint32_t type; /* EC_WORKER_DONE */
	uint32_t serial;
	int32_t error;             /* 0 or -errno; the old configuration is then in force */
	char text[EC_WORKER_TEXT]; /* what failed, with the kernel's words; "" */
} EcWorkerDone;

typedef struct EcWorkerHello {
	uint32_t type; /* EC_WORKER_HELLO */
	uint32_t version;
	uint32_t format;
	uint32_t pid;
	char name[64];
	EcWorkerConfigure configure; /* in force, with its serial, but for the remote, which may be
					learned; type 0: none yet */
} EcWorkerHello;

typedef enum EcWorkerEventKind {
	EC_WORKER_PEER = 1, /* with ROAM: remote is another one from now on */
	EC_WORKER_LACKS,    /* an offload that kernel or device do not have; text names it */
	EC_WORKER_SOCKET,   /* the socket's device is gone (ENODEV): a new socket is needed */
	EC_WORKER_DEVICE,   /* the device is gone; the worker exits */
	EC_WORKER_HERE,     /* the answer to ASK */
} EcWorkerEventKind;

typedef struct EcWorkerEvent {
	uint32_t type;                  /* EC_WORKER_EVENT */
	uint32_t kind;                  /* EcWorkerEventKind */
	int32_t error;                  /* -errno or 0 */
	struct sockaddr_storage remote; /* EC_WORKER_PEER */
	char text[EC_WORKER_TEXT];
} EcWorkerEvent;

/* Bits of EcWorkerStatistics.offloads: what is in use now. */
typedef enum EcWorkerOffloads {
	EC_WORKER_DEVICE_CSUM = 1 << 0, /* TUN_F_CSUM */
	EC_WORKER_DEVICE_TSO = 1 << 1,  /* TUN_F_TSO4 and 6 */
	EC_WORKER_DEVICE_USO = 1 << 2,  /* TUN_F_USO4 and 6 (Linux 6.2) */
	EC_WORKER_UDP_SEGMENT = 1 << 3,
	EC_WORKER_UDP_GRO = 1 << 4,
	EC_WORKER_COALESCE = 1 << 5, /* the device takes super-frames */
} EcWorkerOffloads;

/* All of them only grow, but for `offloads`. Packets and bytes are frames of the tunnel as a wire
 * has them: a super-frame counts as its segments, without the encapsulation's header. */
#define EC_WORKER_STATISTICS(X)                                                                    \
	X(rx_packets) /* into the device */                                                        \
	X(rx_bytes)                                                                                \
	X(tx_packets) /* out of it, sent */                                                        \
	X(tx_bytes)                                                                                \
	X(rx_datagrams) /* UDP payloads, after UDP_GRO's are taken apart */                        \
	X(tx_datagrams)                                                                            \
	X(rx_calls) /* recvmmsg() that brought something */                                        \
	X(tx_calls) /* sendmmsg() */                                                               \
	X(device_reads)                                                                            \
	X(device_writes)                                                                           \
	X(rx_coalesced)        /* frames that went into a super-frame */                           \
	X(tx_segmented)        /* frames that came out of one */                                   \
	X(rx_dropped_stranger) /* not from the remote */                                           \
	X(rx_dropped_malformed)                                                                    \
	X(rx_dropped_id)        /* another key or VNI */                                           \
	X(rx_dropped_device)    /* the device did not take it */                                   \
	X(tx_dropped_peer)      /* nobody to send to */                                            \
	X(tx_dropped_size)      /* above the path MTU; answered or not */                          \
	X(tx_dropped_socket)    /* refused by the socket */                                        \
	X(tx_dropped_malformed) /* the device gave what is no frame */                             \
	X(tx_split)             /* frames sent in pieces */                                        \
	X(rx_joined)            /* frames put together */                                          \
	X(rx_dropped_pieces)    /* pieces of frames that never became whole */                     \
	X(too_big_answers)

typedef struct EcWorkerStatistics {
	uint32_t version;  /* EC_WORKER_PROTOCOL */
	uint32_t offloads; /* EcWorkerOffloads */
#define EC_WORKER_MEMBER(name) uint64_t name;
	EC_WORKER_STATISTICS(EC_WORKER_MEMBER)
#undef EC_WORKER_MEMBER
} EcWorkerStatistics;

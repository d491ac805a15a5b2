/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/socket.h>

#include "util.h"

/*
 * One request to the kernel and its whole answer, synchronously: netlink does the work inside
 * sendmsg() anyway (facts: model-codebases.md §4.4).
 */

typedef struct nl_msg EcMessage;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EcMessage, nlmsg_free)

/* What one exchange is waiting for: the caller fills the first two or leaves them NULL. */
typedef struct EcNetlinkAnswer {
	/* For each message of the answer; < 0 becomes the exchange's result. */
	int (*on_message)(struct nlmsghdr *h, void *userdata);
	void *userdata;
	int error;      /* -errno of the kernel */
	char said[200]; /* the kernel's own words (NLMSGERR_ATTR_MSG), "" when it had none */
	bool complete;
} EcNetlinkAnswer;

/* A connected blocking socket with extended acknowledgements; nl_socket_free() it. -errno. */
int ec_netlink_open(int protocol, struct nl_sock **ret);
/* Sends a request and reads all of its answer. 0, or -errno with a->said filled if the kernel said
 * anything; -EINTR when a list changed while it was read out. */
int ec_netlink_exchange(struct nl_sock *sk, struct nl_msg *msg, EcNetlinkAnswer *a);
/* Sets the error "WHAT: the kernel's words" (org.ethercord1.Error.Kernel); returns `error`. */
int ec_netlink_fail(int error, const EcNetlinkAnswer *a, sd_bus_error *ret_error,
		const char *format, ...) G_GNUC_PRINTF(4, 5);

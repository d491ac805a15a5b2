/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <netlink/errno.h>
#include <string.h>
#include <sys/socket.h>

/*
 * libnl turns errno into codes of its own and drops extended acknowledgements. The exchange
 * therefore looks at the error message itself, keeps errno and the kernel's sentence.
 */

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *userdata)
{
	EcNetlinkAnswer *a = userdata;
	struct nlmsghdr *h = (void *)((char *)e - NLMSG_HDRLEN);
	struct nlattr *tb[NLMSGERR_ATTR_MAX + 1];
	int skip = (int)sizeof(*e);

	a->error = e->error;
	a->complete = true;
	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
		return NL_STOP;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		skip += (int)(e->msg.nlmsg_len - sizeof(e->msg));
	if (nlmsg_parse(h, skip, tb, NLMSGERR_ATTR_MAX, NULL) >= 0 && tb[NLMSGERR_ATTR_MSG])
		nla_strlcpy(a->said, tb[NLMSGERR_ATTR_MSG], sizeof(a->said));
	return NL_STOP;
}

static int on_ack(struct nl_msg *msg, void *userdata)
{
	((EcNetlinkAnswer *)userdata)->complete = true;
	return NL_STOP;
}

static int on_valid(struct nl_msg *msg, void *userdata)
{
	EcNetlinkAnswer *a = userdata;

	if (a->on_message)
		a->error = a->on_message(nlmsg_hdr(msg), a->userdata);
	return NL_OK;
}

int ec_netlink_exchange(struct nl_sock *sk, struct nl_msg *msg, EcNetlinkAnswer *a)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);

	if (!cb)
		return -ENOMEM;
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, a);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, a);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_ack, a);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, a);
	errno = 0;
	int r = nl_send_auto(sk, msg) < 0 ? -(errno ? errno : EIO) : 0;
	while (r == 0 && !a->complete) {
		errno = 0;
		int n = nl_recvmsgs(sk, cb);
		if (n == -NLE_DUMP_INTR)
			r = -EINTR; /* the list changed while it was read out */
		else if (n < 0 && !a->complete)
			r = -(errno ? errno : EIO);
	}
	nl_cb_put(cb);
	return r < 0 ? r : a->error;
}

int ec_netlink_fail(int error, const EcNetlinkAnswer *a, sd_bus_error *ret_error,
		const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *what = g_strdup_vprintf(format, ap);
	va_end(ap);
	(void)ec_error(ret_error, EC_ERROR_KERNEL, "%s: %s%s%s%s", what, a->said,
			a->said[0] ? " (" : "", g_strerror(-error), a->said[0] ? ")" : "");
	return error;
}

int ec_netlink_open(int protocol, struct nl_sock **ret)
{
	struct nl_sock *sk = nl_socket_alloc();
	int on = 1;

	if (!sk)
		return -ENOMEM;
	errno = 0;
	if (nl_connect(sk, protocol) < 0) {
		int r = -(errno ? errno : EIO);
		nl_socket_free(sk);
		return r;
	}
	(void)fcntl(nl_socket_get_fd(sk), F_SETFD, FD_CLOEXEC);
	/* One look at each answer instead of two; the kernel fills at most 32 KiB. */
	nl_socket_disable_msg_peek(sk);
	(void)nl_socket_set_msg_buf_size(sk, 32768);
	(void)setsockopt(nl_socket_get_fd(sk), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	(void)setsockopt(nl_socket_get_fd(sk), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	*ret = sk;
	return 0;
}

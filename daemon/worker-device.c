/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES (8 << 20)

static int fail(sd_bus_error *ret_error, const char *name, int r, int error, const char *what)
{
	(void)ec_error(ret_error, name, "%s: %s", what, g_strerror(error));
	return r;
}

int ec_worker_device_open(const char *ifname, bool ethernet, int *ret_fd, sd_bus_error *ret_error)
{
	struct ifreq request = { .ifr_flags = (short)(IFF_NO_PI | IFF_VNET_HDR |
						      (ethernet ? IFF_TAP : IFF_TUN)) };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), r = 0;

	if (fd < 0)
		return fail(ret_error, EC_ERROR_NOT_SUPPORTED, -EOPNOTSUPP, errno,
				"/dev/net/tun cannot be opened; is the module tun loaded?");
	g_strlcpy(request.ifr_name, ifname, sizeof(request.ifr_name));
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		g_autofree char *what = g_strdup_printf("interface %s cannot be opened", ifname);

		r = -errno;
		(void)close(fd);
		return fail(ret_error, r == -EBUSY ? EC_ERROR_NAME_TAKEN : EC_ERROR_KERNEL, r, -r,
				what);
	}
	*ret_fd = fd;
	return 0;
}

bool ec_worker_device_is_there(int fd)
{
	struct ifreq request = { 0 };

	return ioctl(fd, TUNGETIFF, &request) == 0;
}

int ec_worker_device_keep(int fd, sd_bus_error *ret_error)
{
	return ioctl(fd, TUNSETPERSIST, 1) < 0 ? fail(ret_error, EC_ERROR_KERNEL, -errno, errno,
								 "the interface cannot be kept")
					       : 0;
}

socklen_t ec_worker_sockaddr(
		const EcAddress *a, uint16_t port, int ifindex, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	*ret = (struct sockaddr_storage){ .ss_family = (sa_family_t)a->family };
	if (a->family == AF_INET) {
		in->sin_addr = a->v4;
		in->sin_port = htons(port);
		return sizeof(*in);
	}
	if (a->family == AF_INET6) {
		in6->sin6_addr = a->v6;
		in6->sin6_port = htons(port);
		if (IN6_IS_ADDR_LINKLOCAL(&a->v6))
			in6->sin6_scope_id = (uint32_t)ifindex;
	}
	return sizeof(*in6);
}

bool ec_worker_socket_same(const EcWorkerSocket *a, const EcWorkerSocket *b)
{
	return ec_address_equal(&a->local, &b->local) && a->port == b->port &&
	       a->ifindex == b->ifindex && g_str_equal(a->device, b->device) &&
	       a->mark == b->mark && a->ttl == b->ttl && a->tos == b->tos &&
	       a->fragment == b->fragment;
}

typedef struct Option {
	int level, name;
	int value;
} Option;

static int set_all(int fd, const Option *o, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (setsockopt(fd, o[i].level, o[i].name, &o[i].value, sizeof(o[i].value)) < 0)
			return -errno;
	}
	return 0;
}

static int set_options(int fd, const EcWorkerSocket *s)
{
	const Option common[] = { { SOL_SOCKET, SO_REUSEADDR, 1 },
		{ SOL_SOCKET, SO_MARK, (int)s->mark }, { SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES },
		{ SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES } };
	/* OMIT: fragments by the device's MTU, whatever somebody says about the path. */
	const Option four[] = { { IPPROTO_IP, IP_TTL, s->ttl }, { IPPROTO_IP, IP_TOS, s->tos },
		{ IPPROTO_IP, IP_MTU_DISCOVER, s->fragment ? IP_PMTUDISC_OMIT : IP_PMTUDISC_DO } };
	/* A kernel's FOU sends no checksum over IPv6 unless it is told to, and takes both (RFC
	 * 6935).
	 */
	const Option six[] = { { IPPROTO_IPV6, IPV6_V6ONLY, 1 },
		{ IPPROTO_UDP, UDP_NO_CHECK6_RX, 1 }, { IPPROTO_IPV6, IPV6_UNICAST_HOPS, s->ttl },
		{ IPPROTO_IPV6, IPV6_TCLASS, s->tos },
		{ IPPROTO_IPV6, IPV6_MTU_DISCOVER,
				s->fragment ? IPV6_PMTUDISC_OMIT : IPV6_PMTUDISC_DO } };
	int r = set_all(fd, common, EC_ELEMENTS(common));

	if (r == 0)
		r = s->local.family == AF_INET6 ? set_all(fd, six, EC_ELEMENTS(six))
						: set_all(fd, four, EC_ELEMENTS(four));
	if (r == 0 && *s->device &&
			setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, s->device,
					(socklen_t)strlen(s->device)) < 0)
		r = -errno;
	return r;
}

int ec_worker_socket_open(const EcWorkerSocket *s, int *ret_fd, sd_bus_error *ret_error)
{
	struct sockaddr_storage address;
	socklen_t size = ec_worker_sockaddr(&s->local, s->port, s->ifindex, &address);
	char text[INET6_ADDRSTRLEN];

	int fd = socket(s->local.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : set_options(fd, s);
	if (r == 0 && bind(fd, (struct sockaddr *)&address, size) < 0)
		r = -errno;
	if (r == 0) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		(void)close(fd);
	g_autofree char *what = g_strdup_printf("UDP port %u of %s%s%s cannot be opened", s->port,
			ec_address_to_string(&s->local, text), *s->device ? " at " : "", s->device);
	return fail(ret_error, r == -EADDRINUSE ? EC_ERROR_NAME_TAKEN : EC_ERROR_KERNEL, r, -r,
			what);
}

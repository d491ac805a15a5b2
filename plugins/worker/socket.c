/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>

static int option(int fd, int level, int name)
{
	int value = 0;
	socklen_t size = sizeof(value);

	/* seccomp: getsockopt */
	return getsockopt(fd, level, name, &value, &size) < 0 ? -errno : value;
}

int ec_socket_check(int fd, sa_family_t *ret_family)
{
	const int domain = option(fd, SOL_SOCKET, SO_DOMAIN);

	if (domain < 0)
		return domain;
	if ((domain != AF_INET && domain != AF_INET6) ||
			option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP)
		return -EPROTOTYPE;
	*ret_family = (sa_family_t)domain;
	return 0;
}

uint32_t ec_socket_offloads(int fd)
{
	const int yes = 1;
	uint32_t result = 0;

	if (option(fd, IPPROTO_UDP, UDP_SEGMENT) >= 0)
		result |= EC_WORKER_UDP_SEGMENT;
	/* seccomp: setsockopt */
	if (setsockopt(fd, IPPROTO_UDP, UDP_GRO, &yes, sizeof(yes)) == 0)
		result |= EC_WORKER_UDP_GRO;
	return result;
}

bool ec_socket_is_lost(int fd)
{
	char name[IFNAMSIZ];
	socklen_t size = sizeof(name);

	return getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &size) < 0 && errno == ENODEV;
}

socklen_t ec_socket_address_size(sa_family_t family)
{
	return family == AF_INET    ? sizeof(struct sockaddr_in)
	       : family == AF_INET6 ? sizeof(struct sockaddr_in6)
				    : 0;
}

static const struct sockaddr_in *v4(const struct sockaddr_storage *a)
{
	return (const struct sockaddr_in *)a;
}

static const struct sockaddr_in6 *v6(const struct sockaddr_storage *a)
{
	return (const struct sockaddr_in6 *)a;
}

uint16_t ec_socket_port(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET    ? ntohs(v4(a)->sin_port)
	       : a->ss_family == AF_INET6 ? ntohs(v6(a)->sin6_port)
					  : 0;
}

void ec_socket_set_port(struct sockaddr_storage *a, uint16_t port)
{
	if (a->ss_family == AF_INET)
		((struct sockaddr_in *)a)->sin_port = htons(port);
	else if (a->ss_family == AF_INET6)
		((struct sockaddr_in6 *)a)->sin6_port = htons(port);
}

bool ec_socket_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b, bool port)
{
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return v4(a)->sin_addr.s_addr == v4(b)->sin_addr.s_addr &&
		       (!port || v4(a)->sin_port == v4(b)->sin_port);
	if (a->ss_family != AF_INET6 ||
			memcmp(&v6(a)->sin6_addr, &v6(b)->sin6_addr, sizeof(struct in6_addr)) != 0)
		return false;
	/* A scope that somebody left out fits any. */
	return (!port || v6(a)->sin6_port == v6(b)->sin6_port) &&
	       (!v6(a)->sin6_scope_id || !v6(b)->sin6_scope_id ||
			       v6(a)->sin6_scope_id == v6(b)->sin6_scope_id);
}

unsigned ec_socket_path_mtu(int fd, sa_family_t family)
{
	const int mtu = family == AF_INET ? option(fd, IPPROTO_IP, IP_MTU)
					  : option(fd, IPPROTO_IPV6, IPV6_MTU);

	return mtu > 0 ? (unsigned)mtu : 0;
}

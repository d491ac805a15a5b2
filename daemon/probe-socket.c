/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe-socket.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_sched.h>
#include <netinet/ip.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IP_SIZE 20
#define IP_PROBE_PROTOCOL 253 /* RFC 3692: for experiments */
#define IP_SOURCE 0xc0000008u /* RFC 7600: a host without an address */
#define IP_GROUP 0xe00000feu  /* RFC 4727: for experiments; link-local, so never forwarded */
/* A minute of them fits, were the daemon stopped for so long. */
#define RECEIVE_BUFFER 32768

static const uint8_t group_mac[ETH_ALEN - 1] = { 0x01, 0x80, 0xc2, 0x00, 0x00 };

/* Offsets from the Ethernet header. A tagged frame is somebody else's. */
static const struct sock_filter ethernet_filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 9, 0),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 7),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x0180c200, 0, 5),
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0xfff0, 3, 0),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ETH_HLEN),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, EC_PROBE_MAGIC, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

/* Offsets from the IP header. */
static const struct sock_filter ip_filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 9, 0),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x45, 0, 7),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IP_PROBE_PROTOCOL, 0, 5),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IP_GROUP, 0, 3),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP_SIZE),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, EC_PROBE_MAGIC, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

unsigned ec_probe_socket_header(bool ethernet)
{
	return ethernet ? 0 : IP_SIZE;
}

static int set_up(int fd, int ifindex, bool ethernet)
{
	const struct sock_fprog program = {
		.len = ethernet ? EC_ELEMENTS(ethernet_filter) : EC_ELEMENTS(ip_filter),
		.filter = (struct sock_filter *)(ethernet ? ethernet_filter : ip_filter),
	};
	const struct sockaddr_ll where = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ethernet ? EC_PROBE_ETHERTYPE : ETH_P_IP),
		.sll_ifindex = ifindex,
	};
	const int priority = TC_PRIO_CONTROL, buffer = RECEIVE_BUFFER;

	/* The filter first: without a protocol the socket receives nothing yet. */
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ||
			setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) < 0 ||
			setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority)) < 0 ||
			bind(fd, (const struct sockaddr *)&where, sizeof(where)) < 0)
		return -errno;
	return 0;
}

int ec_probe_socket_open(int ifindex, bool ethernet, sd_bus_error *ret_error)
{
	int type = (ethernet ? SOCK_RAW : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
	int fd = socket(AF_PACKET, type, 0);
	int r = fd < 0 ? -errno : set_up(fd, ifindex, ethernet);

	if (r >= 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	(void)ec_error(ret_error, EC_ERROR_KERNEL,
			"cannot open a packet socket for the probes on interface %d: %s", ifindex,
			g_strerror(-r));
	return r;
}

static uint16_t ip_checksum(const uint8_t header[static IP_SIZE])
{
	uint32_t sum = 0;

	for (size_t i = 0; i < IP_SIZE; i += 2)
		sum += (uint32_t)header[i] << 8 | header[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~(sum + (sum >> 16));
}

/* DF is not set: whether the path fragments is up to the tunnel, as for other packets. */
static void fill_ip(uint8_t ret[static IP_SIZE], unsigned size)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = IP_SIZE / 4,
		.tos = IPTOS_CLASS_CS6,
		.tot_len = htons((uint16_t)size),
		.ttl = 1,
		.protocol = IP_PROBE_PROTOCOL,
		.saddr = htonl(IP_SOURCE),
		.daddr = htonl(IP_GROUP),
	};

	memcpy(ret, &ip, IP_SIZE);
	ip.check = htons(ip_checksum(ret));
	memcpy(ret, &ip, IP_SIZE);
}

static void fill_ethernet(uint8_t ret[static ETH_HLEN], const uint8_t *mac, uint8_t group)
{
	memcpy(ret, group_mac, sizeof(group_mac));
	ret[ETH_ALEN - 1] = group;
	memcpy(ret + ETH_ALEN, mac, ETH_ALEN);
	ret[12] = EC_PROBE_ETHERTYPE >> 8;
	ret[13] = EC_PROBE_ETHERTYPE & 0xff;
}

void ec_probe_socket_send(const EcProbeWay *way, const EcProbe *p,
		const uint8_t key[static EC_PROBE_KEY_SIZE])
{
	static const uint8_t padding[UINT16_MAX];
	uint8_t header[IP_SIZE], probe[EC_PROBE_SIZE];
	const struct iovec part[] = {
		{ .iov_base = header, .iov_len = way->ethernet ? ETH_HLEN : IP_SIZE },
		{ .iov_base = probe, .iov_len = EC_PROBE_SIZE },
		{ .iov_base = (void *)padding, .iov_len = p->size - EC_PROBE_SIZE },
	};
	const struct msghdr msg = { .msg_iov = (struct iovec *)part,
		.msg_iovlen = EC_ELEMENTS(part) };

	if (way->ethernet)
		fill_ethernet(header, way->mac, way->group);
	else
		fill_ip(header, IP_SIZE + p->size);
	ec_probe_encode(p, key, probe);
	if (!way->inject || !way->inject(part, EC_ELEMENTS(part), way->userdata))
		(void)sendmsg(way->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t ec_probe_socket_receive(int fd, bool ethernet, uint8_t ret[static EC_PROBE_SIZE])
{
	uint8_t header[IP_SIZE];
	const size_t length = ethernet ? ETH_HLEN : IP_SIZE;
	const struct iovec part[] = {
		{ .iov_base = header, .iov_len = length },
		{ .iov_base = ret, .iov_len = EC_PROBE_SIZE },
	};
	struct msghdr msg = { .msg_iov = (struct iovec *)part, .msg_iovlen = EC_ELEMENTS(part) };
	/* The whole size, of which the padding is not copied. */
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0) /* the interface going down is told once, as ENETDOWN */
		return errno == EAGAIN ? -EAGAIN : 0;
	return n < (ssize_t)(length + EC_PROBE_SIZE) ? 0 : n - (ssize_t)length;
}

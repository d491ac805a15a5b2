/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mapping.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe-socket.h"

/*
 * Offsets count from the outer IP header: the packet socket takes the link's own header away, which
 * a VPN's device may not have at all. Small probes are never fragments; IPv6 extension headers are
 * not looked behind. What the filter lets through is taken apart once more here.
 */

#define UDP_SIZE 8
#define HEADER_SIZE 8 /* VXLAN's, or GRE's with a key */
#define IP_SIZE 20    /* of the IPv4 packet that a probe is where there is no Ethernet */
#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_VERSION 0x0007
#define DATAGRAM_MAX (60 + UDP_SIZE + HEADER_SIZE + 4 + ETH_HLEN + EC_PROBE_SIZE)
#define DRAIN_MAX 64

struct EcMapping {
	bool dead, busy;
	EcMappingSpec spec;
	EcLiveness *liveness;
	EcMoved moved;
	void *userdata;
	sd_event_source *io;
	EcAddress address;
	uint16_t port;
};

/* Filter */

typedef struct Program {
	struct sock_filter code[40];
	uint16_t n;
} Program;

static void put(Program *p, uint16_t code, uint32_t k)
{
	p->code[p->n++] = (struct sock_filter)BPF_STMT(code, k);
}

/* Goes on only if the accumulator is k: finish() makes the jumps lead to the end. */
static void need(Program *p, uint32_t k)
{
	p->code[p->n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, 255);
}

static void need_masked(Program *p, uint32_t mask, uint32_t k)
{
	put(p, BPF_ALU | BPF_AND, mask);
	need(p, k);
}

/* Loads from the UDP header on: X is the size of the IP header. */
static void load(Program *p, uint16_t size, uint32_t offset)
{
	put(p, BPF_LD | size | BPF_IND, offset);
}

static void match_ip(Program *p, int family)
{
	if (family == AF_INET6) {
		put(p, BPF_LD | BPF_B | BPF_ABS, 6);
		need(p, IPPROTO_UDP);
		put(p, BPF_LDX | BPF_IMM, 40);
		return;
	}
	put(p, BPF_LD | BPF_B | BPF_ABS, 9);
	need(p, IPPROTO_UDP);
	put(p, BPF_LD | BPF_H | BPF_ABS, 6); /* fragments */
	need_masked(p, 0x3fff, 0);
	put(p, BPF_LDX | BPF_B | BPF_MSH, 0);
}

static void match_probe(Program *p, uint32_t offset)
{
	load(p, BPF_W, offset);
	need(p, 0x0180c200);
	load(p, BPF_H, offset + 4);
	need_masked(p, 0xfff0, 0);
	load(p, BPF_H, offset + 12);
	need(p, EC_PROBE_ETHERTYPE);
	load(p, BPF_W, offset + ETH_HLEN);
	need(p, EC_PROBE_MAGIC);
}

static void match_vxlan(Program *p, uint32_t vni)
{
	load(p, BPF_B, UDP_SIZE);
	need_masked(p, 0x08, 0x08);
	load(p, BPF_W, UDP_SIZE + 4);
	need_masked(p, 0xffffff00, vni << 8);
	match_probe(p, UDP_SIZE + HEADER_SIZE);
}

static void match_gre(Program *p, uint32_t key)
{
	load(p, BPF_H, UDP_SIZE + 2);
	need(p, ETH_P_TEB);
	load(p, BPF_W, UDP_SIZE + 4);
	need(p, key);
	load(p, BPF_H, UDP_SIZE);
	need_masked(p, GRE_CHECKSUM | GRE_KEY | GRE_VERSION, GRE_KEY);
	/* With a sequence number all is 4 further back: X grows. */
	load(p, BPF_H, UDP_SIZE);
	put(p, BPF_ALU | BPF_AND | BPF_K, GRE_SEQUENCE);
	put(p, BPF_ALU | BPF_RSH | BPF_K, 10);
	put(p, BPF_ALU | BPF_ADD | BPF_X, 0);
	put(p, BPF_MISC | BPF_TAX, 0);
	match_probe(p, UDP_SIZE + HEADER_SIZE);
}

static void match_raw(Program *p, uint32_t id)
{
	match_probe(p, UDP_SIZE);
}

static void match_inner_ip(Program *p, uint32_t id)
{
	load(p, BPF_B, UDP_SIZE);
	need(p, 0x45);
	load(p, BPF_W, UDP_SIZE + IP_SIZE);
	need(p, EC_PROBE_MAGIC);
}

static const struct {
	void (*match)(Program *p, uint32_t id);
	size_t size; /* of what precedes the probe, without a GRE sequence number */
} format[] = {
	[EC_MAPPING_GRE] = { match_gre, HEADER_SIZE + ETH_HLEN },
	[EC_MAPPING_VXLAN] = { match_vxlan, HEADER_SIZE + ETH_HLEN },
	[EC_MAPPING_RAW] = { match_raw, ETH_HLEN },
	[EC_MAPPING_IP] = { match_inner_ip, IP_SIZE },
};

static void finish(Program *p)
{
	put(p, BPF_RET | BPF_K, UINT32_MAX);
	put(p, BPF_RET | BPF_K, 0);
	for (uint16_t i = 0; i < p->n; i++) {
		if (p->code[i].jf == 255)
			p->code[i].jf = (uint8_t)(p->n - i - 2);
	}
}

static void make_filter(Program *p, const EcMappingSpec *spec)
{
	p->n = 0;
	put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE));
	need(p, PACKET_HOST);
	match_ip(p, spec->family);
	load(p, BPF_H, 2);
	need(p, spec->data_port);
	format[spec->format].match(p, spec->id);
	finish(p);
}

/* Datagrams */

typedef struct Datagram {
	EcAddress source;
	uint16_t port;
	const uint8_t *probe;
	size_t size;
} Datagram;

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

/* The size of the IP header, or 0. */
static size_t take_ip(const EcMappingSpec *spec, const uint8_t *data, size_t n, EcAddress *ret)
{
	size_t header = 40;

	ret->family = spec->family;
	if (n < 40)
		return 0;
	if (spec->family == AF_INET6) {
		memcpy(ret->bytes, data + 8, 16);
		return header;
	}
	header = (size_t)(data[0] & 15) * 4;
	memcpy(ret->bytes, data + 12, 4);
	return header < 20 ? 0 : header;
}

static bool take_datagram(const EcMappingSpec *spec, const uint8_t *data, size_t n, Datagram *ret)
{
	size_t at = take_ip(spec, data, n, &ret->source);

	if (!at || n < at + UDP_SIZE + format[spec->format].size)
		return false;
	ret->port = get16(data + at);
	at += UDP_SIZE;
	if (spec->format == EC_MAPPING_GRE && (get16(data + at) & GRE_SEQUENCE))
		at += 4;
	at += format[spec->format].size;
	if (n < at + EC_PROBE_SIZE)
		return false;
	ret->probe = data + at;
	ret->size = n - at;
	return true;
}

static void take(EcMapping *m, const uint8_t *data, size_t n)
{
	Datagram d = { 0 };

	if (!take_datagram(&m->spec, data, n, &d) ||
			!ec_liveness_verify(m->liveness, d.probe, d.size) ||
			(d.port == m->port && ec_address_equal(&d.source, &m->address)))
		return;
	m->port = d.port;
	m->address = d.source;
	m->moved(m, &m->address, m->port, m->userdata);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcMapping *m = userdata;
	uint8_t data[DATAGRAM_MAX];

	m->busy = true;
	for (unsigned i = 0; i < DRAIN_MAX && !m->dead; i++) {
		ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

		if (n < 0)
			break; /* also when the interface goes down */
		take(m, data, (size_t)n);
	}
	m->busy = false;
	if (m->dead)
		g_free(m);
	return 0;
}

static int open_socket(const EcMappingSpec *spec)
{
	Program p;
	const int buffer = 32768;
	const struct sockaddr_ll where = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(spec->family == AF_INET6 ? ETH_P_IPV6 : ETH_P_IP),
		.sll_ifindex = spec->ifindex,
	};
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	make_filter(&p, spec);
	const struct sock_fprog program = { .len = p.n, .filter = p.code };
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ||
			setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) < 0 ||
			bind(fd, (const struct sockaddr *)&where, sizeof(where)) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

int ec_mapping_new(sd_event *event, const EcMappingSpec *spec, EcLiveness *liveness, EcMoved moved,
		void *userdata, EcMapping **ret, sd_bus_error *ret_error)
{
	EcMapping *m = g_new0(EcMapping, 1);
	int fd = open_socket(spec);
	int r = fd;

	m->spec = *spec;
	m->liveness = liveness;
	m->moved = moved;
	m->userdata = userdata;
	if (r >= 0)
		r = sd_event_add_io(event, &m->io, fd, EPOLLIN, on_io, m);
	if (r < 0) {
		if (fd >= 0)
			(void)close(fd);
		g_free(m);
		(void)ec_error(ret_error, EC_ERROR_KERNEL,
				"cannot open a packet socket on interface %d to follow the peer's NAT: "
				"%s",
				spec->ifindex, g_strerror(-r));
		return r;
	}
	(void)sd_event_source_set_io_fd_own(m->io, true);
	*ret = m;
	return 0;
}

EcMapping *ec_mapping_free(EcMapping *m)
{
	if (!m)
		return NULL;
	m->io = sd_event_source_disable_unref(m->io);
	m->dead = true;
	if (!m->busy)
		g_free(m);
	return NULL;
}

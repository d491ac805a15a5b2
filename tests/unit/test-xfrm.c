/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/xfrm.h"

#include <errno.h>
#include <linux/udp.h>
#include <string.h>

#include "unit.h"

/* Policies and security associations from messages as the kernel sends them. */

static void set_prefix(const char *text, xfrm_address_t *ret, uint8_t *ret_length, uint16_t *family)
{
	EcAddress a;
	unsigned length;

	g_assert_cmpint(ec_cidr_from_string(text, &a, &length), ==, 0);
	memcpy(ret, a.bytes, ec_address_size(&a));
	*ret_length = (uint8_t)length;
	*family = (uint16_t)a.family;
}

static struct xfrm_selector selector(const char *local, const char *remote)
{
	struct xfrm_selector s = { 0 };

	set_prefix(local, &s.saddr, &s.prefixlen_s, &s.family);
	set_prefix(remote, &s.daddr, &s.prefixlen_d, &s.family);
	return s;
}

static struct xfrm_userpolicy_info out(const char *local, const char *remote, uint32_t priority)
{
	static uint32_t index;

	return (struct xfrm_userpolicy_info){ .sel = selector(local, remote),
		.priority = priority,
		.index = index += 8,
		.dir = XFRM_POLICY_OUT };
}

static struct xfrm_user_tmpl esp(const char *from, const char *to, uint32_t reqid)
{
	struct xfrm_user_tmpl t = {
		.id.proto = IPPROTO_ESP, .reqid = reqid, .mode = XFRM_MODE_TUNNEL
	};
	uint8_t length;

	set_prefix(from, &t.saddr, &length, &t.family);
	set_prefix(to, &t.id.daddr, &length, &t.family);
	return t;
}

static EcMessage *message(int type, const void *fixed, size_t size)
{
	EcMessage *m = nlmsg_alloc_simple(type, 0);

	g_assert_cmpint(nlmsg_append(m, (void *)fixed, size, NLMSG_ALIGNTO), ==, 0);
	return m;
}

static void put(EcMessage *m, int type, const void *data, size_t size)
{
	g_assert_cmpint(nla_put(m, type, (int)size, data), ==, 0);
}

static EcMessage *policy_message(const struct xfrm_userpolicy_info *info,
		const struct xfrm_user_tmpl *t, uint32_t if_id, const struct xfrm_mark *mark)
{
	EcMessage *m = message(XFRM_MSG_NEWPOLICY, info, sizeof(*info));

	if (t)
		put(m, XFRMA_TMPL, t, sizeof(*t));
	if (mark)
		put(m, XFRMA_MARK, mark, sizeof(*mark));
	if (if_id)
		put(m, XFRMA_IF_ID, &if_id, sizeof(if_id));
	return m;
}

static void add_policy(EcXfrm *x, const struct xfrm_userpolicy_info *info,
		const struct xfrm_user_tmpl *t, uint32_t if_id, const struct xfrm_mark *mark)
{
	g_autoptr(EcMessage) m = policy_message(info, t, if_id, mark);
	EcXfrmPolicy p;

	if (ec_xfrm_policy_parse(nlmsg_hdr(m), &p) == 1)
		g_array_append_val(x->policies, p);
}

/* A policy with ESP from 10.9.1.2 to 10.9.2.2. */
static void add_esp(EcXfrm *x, const struct xfrm_userpolicy_info *info, uint32_t reqid)
{
	const struct xfrm_user_tmpl t = esp("10.9.1.2", "10.9.2.2", reqid);

	add_policy(x, info, &t, 0, NULL);
}

static EcXfrmPacket gre(const char *from, const char *to)
{
	return (EcXfrmPacket){ .source = unit_address(from),
		.target = unit_address(to),
		.protocol = IPPROTO_GRE,
		.ifindex = 2 };
}

/* reqid of the template that takes the packet; 0: one without template; -1: no policy. */
static int taken(const EcXfrm *x, const EcXfrmPacket *packet)
{
	const EcXfrmPolicy *p = ec_xfrm_policy_for(x, XFRM_POLICY_OUT, packet, false);

	if (!p)
		return -1;
	return p->n_templates ? (int)p->templates[0].reqid : 0;
}

static int taken_from(const EcXfrm *x, const char *from, const char *to)
{
	const EcXfrmPacket packet = gre(from, to);

	return taken(x, &packet);
}

static void test_prefixes(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info odd = out("10.50.1.0/24", "10.50.2.0/23", 10),
				    v6 = out("fd00:1::/64", "fd00:2:0:8000::/49", 10),
				    v6_host = out("fd00:1::1", "fd00:3::1", 10);

	add_esp(x, &odd, 1);
	add_esp(x, &v6, 2);
	add_esp(x, &v6_host, 3);
	g_assert_cmpint(taken_from(x, "10.50.1.1", "10.50.2.1"), ==, 1);
	g_assert_cmpint(taken_from(x, "10.50.1.1", "10.50.3.255"), ==, 1);
	g_assert_cmpint(taken_from(x, "10.50.1.1", "10.50.4.0"), ==, -1);
	g_assert_cmpint(taken_from(x, "10.50.1.1", "10.50.1.255"), ==, -1);
	g_assert_cmpint(taken_from(x, "10.50.0.255", "10.50.2.1"), ==, -1);
	g_assert_cmpint(taken_from(x, "fd00:1::5", "fd00:2:0:8000::1"), ==, 2);
	g_assert_cmpint(taken_from(x, "fd00:1::5", "fd00:2:0:ffff::1"), ==, 2);
	g_assert_cmpint(taken_from(x, "fd00:1::5", "fd00:2:0:7fff::1"), ==, -1);
	g_assert_cmpint(taken_from(x, "fd00:1:0:1::5", "fd00:2:0:8000::1"), ==, -1);
	g_assert_cmpint(taken_from(x, "fd00:1::1", "fd00:3::1"), ==, 3);
	g_assert_cmpint(taken_from(x, "fd00:1::1", "fd00:3::3"), ==, -1);
}

static void test_prefix_zero(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info any = out("0.0.0.0/0", "0.0.0.0/0", 10);
	EcXfrmPacket unknown = gre("", "10.1.1.1");

	add_esp(x, &any, 1);
	g_assert_cmpint(taken_from(x, "1.2.3.4", "10.1.1.1"), ==, 1);
	g_assert_cmpint(taken_from(x, "fd00::1", "fd00::2"), ==, -1);
	g_assert_cmpint(taken(x, &unknown), ==, 1);
}

static void test_direction(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info in = out("10.50.2.0/24", "10.50.1.0/24", 10),
				    ours = out("10.50.1.0/24", "10.50.2.0/24", 10);

	add_esp(x, &ours, 1);
	const EcXfrmPolicy *p = &g_array_index(x->policies, EcXfrmPolicy, 0);
	g_assert_null(ec_xfrm_inbound(x, p));
	in.dir = XFRM_POLICY_FWD;
	add_esp(x, &in, 2);
	p = &g_array_index(x->policies, EcXfrmPolicy, 0);
	g_assert_null(ec_xfrm_inbound(x, p));
	in.dir = XFRM_POLICY_IN;
	add_esp(x, &in, 3);
	p = &g_array_index(x->policies, EcXfrmPolicy, 0);
	g_assert_nonnull(ec_xfrm_inbound(x, p));
	g_assert_cmpint(taken_from(x, "10.50.2.1", "10.50.1.1"), ==, -1);
}

static void test_protocol_and_ports(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info gre_only = out("10.0.0.1", "10.0.0.2", 10),
				    vxlan = out("10.0.0.1", "10.0.0.3", 10),
				    range = out("10.0.0.1", "10.0.0.4", 10),
				    source = out("10.0.0.1", "10.0.0.5", 10);
	EcXfrmPacket packet = gre("10.0.0.1", "10.0.0.2");

	gre_only.sel.proto = IPPROTO_GRE;
	vxlan.sel.proto = range.sel.proto = source.sel.proto = IPPROTO_UDP;
	vxlan.sel.dport = htons(4789);
	vxlan.sel.dport_mask = htons(0xffff);
	range.sel.dport = htons(0x1000);
	range.sel.dport_mask = htons(0xf000);
	source.sel.sport = htons(4789);
	source.sel.sport_mask = htons(0xffff);
	add_esp(x, &gre_only, 1);
	add_esp(x, &vxlan, 2);
	add_esp(x, &range, 3);
	add_esp(x, &source, 4);
	g_assert_cmpint(taken(x, &packet), ==, 1);
	packet.protocol = IPPROTO_UDP;
	packet.target_port = 65201;
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.protocol = 0; /* not known: not covered */
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.protocol = IPPROTO_UDP;
	packet.target = unit_address("10.0.0.3");
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.target_port = 4789;
	g_assert_cmpint(taken(x, &packet), ==, 2);
	packet.target_port = 0;
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.target = unit_address("10.0.0.4");
	packet.target_port = 0x1fff;
	g_assert_cmpint(taken(x, &packet), ==, 3);
	packet.target_port = 0x2000;
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.target = unit_address("10.0.0.5"); /* its source port may be any */
	g_assert_cmpint(taken(x, &packet), ==, -1);
}

/* What is not known of a packet counts against it. */
static void test_unknown_meets_bypass(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info all = out("10.0.0.0/24", "10.0.0.0/24", 20),
				    high = out("10.0.0.0/24", "10.0.0.0/24", 10),
				    dns = out("10.0.0.0/24", "10.0.0.0/24", 10);
	EcXfrmPacket packet = gre("10.0.0.1", "10.0.0.2");

	packet.protocol = IPPROTO_UDP;
	packet.target_port = 4789;
	add_esp(x, &all, 1);
	dns.sel.proto = high.sel.proto = IPPROTO_UDP;
	dns.sel.sport = htons(53);
	dns.sel.sport_mask = high.sel.sport_mask = 0xffff;
	add_policy(x, &dns, NULL, 0, NULL);
	g_assert_cmpint(taken(x, &packet), ==, 1);
	high.sel.sport = htons(40000);
	add_policy(x, &high, NULL, 0, NULL);
	g_assert_cmpint(taken(x, &packet), ==, 0);
	packet.protocol = IPPROTO_GRE;
	g_assert_cmpint(taken(x, &packet), ==, 1);
}

static void test_identity(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info of_interface = out("0.0.0.0/0", "0.0.0.0/0", 5),
				    marked = out("0.0.0.0/0", "0.0.0.0/0", 6),
				    device = out("0.0.0.0/0", "0.0.0.0/0", 7);
	const struct xfrm_user_tmpl t1 = esp("10.9.1.2", "10.9.2.2", 1),
				    t2 = esp("10.9.1.2", "10.9.2.2", 2),
				    t3 = esp("10.9.1.2", "10.9.2.2", 3);
	const struct xfrm_mark mark = { .v = 0x20, .m = 0xf0 };
	EcXfrmPacket packet = gre("10.0.0.1", "10.0.0.2");

	device.sel.ifindex = 7;
	add_policy(x, &of_interface, &t1, 42, NULL);
	add_policy(x, &marked, &t2, 0, &mark);
	add_policy(x, &device, &t3, 0, NULL);
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.if_id = 42;
	g_assert_cmpint(taken(x, &packet), ==, 1);
	packet.if_id = 43;
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.if_id = 0;
	packet.mark = 0x2f;
	g_assert_cmpint(taken(x, &packet), ==, 2);
	packet.mark = 0x3f;
	g_assert_cmpint(taken(x, &packet), ==, -1);
	packet.ifindex = 7;
	g_assert_cmpint(taken(x, &packet), ==, 3);
}

static void test_priorities(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info second = out("10.0.0.0/8", "10.0.0.0/8", 20),
				    third = out("10.0.0.0/16", "10.0.0.0/16", 20),
				    first = out("0.0.0.0/0", "0.0.0.0/0", 10),
				    pass = out("0.0.0.0/0", "10.0.0.0/9", 5),
				    block = out("0.0.0.0/0", "10.0.0.0/10", 4);
	const EcXfrmPacket packet = gre("10.0.0.1", "10.0.0.2");

	add_esp(x, &third, 3); /* newest first, as in a dump */
	add_esp(x, &second, 2);
	g_assert_cmpint(taken(x, &packet), ==, 2); /* the older one */
	add_esp(x, &first, 1);
	g_assert_cmpint(taken(x, &packet), ==, 1);
	add_policy(x, &pass, NULL, 0, NULL);
	g_assert_cmpint(taken(x, &packet), ==, 0);
	const EcXfrmPolicy *p = ec_xfrm_policy_for(x, XFRM_POLICY_OUT, &packet, true);
	g_assert_nonnull(p);
	g_assert_cmpint(p->templates[0].reqid, ==, 1);
	block.action = XFRM_POLICY_BLOCK;
	add_esp(x, &block, 9);
	p = ec_xfrm_policy_for(x, XFRM_POLICY_OUT, &packet, false);
	g_assert_cmpint(p->info.action, ==, XFRM_POLICY_BLOCK);
	g_assert_false(ec_xfrm_protects(p));
}

/* Kernels differ where a policy for single hosts has the priority of another. */
static void test_equal_priority_single(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info wide = out("10.0.0.0/8", "10.0.0.0/8", 20),
				    single = out("10.0.0.1", "10.0.0.2", 20);
	const EcXfrmPacket packet = gre("10.0.0.1", "10.0.0.2");

	add_esp(x, &wide, 1);
	add_policy(x, &single, NULL, 0, NULL);
	g_assert_cmpint(taken(x, &packet), ==, 0);
}

static void test_not_ours(void)
{
	struct xfrm_userpolicy_info guard = out("10.0.0.1", "10.0.0.2", EC_XFRM_GUARD_PRIORITY),
				    socket = out("0.0.0.0/0", "0.0.0.0/0", 0),
				    foreign = out("10.0.0.1", "10.0.0.2", 1);
	const struct xfrm_userpolicy_type sub = { .type = XFRM_POLICY_TYPE_SUB };
	EcXfrmPolicy p;

	guard.action = XFRM_POLICY_BLOCK;
	foreign.action = XFRM_POLICY_BLOCK;
	socket.dir = XFRM_POLICY_MAX + 1;
	g_autoptr(EcMessage) a = policy_message(&guard, NULL, 0, NULL);
	g_autoptr(EcMessage) b = policy_message(&socket, NULL, 0, NULL);
	g_autoptr(EcMessage) c = policy_message(&foreign, NULL, 0, NULL);
	g_autoptr(EcMessage) d = policy_message(&foreign, NULL, 0, NULL);
	put(d, XFRMA_POLICY_TYPE, &sub, sizeof(sub));
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(a), &p), ==, 0);
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(b), &p), ==, 0);
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(c), &p), ==, 1);
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(d), &p), ==, 0);
	g_assert_false(ec_xfrm_event_matters(nlmsg_hdr(a)));
	g_assert_false(ec_xfrm_event_matters(nlmsg_hdr(b)));
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(c)));
}

static void test_events(void)
{
	struct xfrm_userpolicy_info guard = out("10.0.0.1", "10.0.0.2", EC_XFRM_GUARD_PRIORITY),
				    other = out("10.0.0.1", "10.0.0.2", 7);
	const struct xfrm_userpolicy_id id = { .dir = XFRM_POLICY_OUT };
	struct xfrm_user_expire expire = { .hard = 0 };
	const struct xfrm_usersa_flush flush = { 0 };

	guard.action = XFRM_POLICY_BLOCK;
	g_autoptr(EcMessage) a = message(XFRM_MSG_DELPOLICY, &id, sizeof(id));
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(a))); /* of what, it does not tell */
	put(a, XFRMA_POLICY, &guard, sizeof(guard));
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(a))); /* it has to be put back */
	g_autoptr(EcMessage) b = message(XFRM_MSG_DELPOLICY, &id, sizeof(id));
	put(b, XFRMA_POLICY, &other, sizeof(other));
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(b)));
	g_autoptr(EcMessage) c = message(XFRM_MSG_EXPIRE, &expire, sizeof(expire));
	g_assert_false(ec_xfrm_event_matters(nlmsg_hdr(c)));
	expire.hard = 1;
	g_autoptr(EcMessage) d = message(XFRM_MSG_EXPIRE, &expire, sizeof(expire));
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(d)));
	g_autoptr(EcMessage) e = message(XFRM_MSG_FLUSHSA, &flush, sizeof(flush));
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(e)));
	g_autoptr(EcMessage) f = nlmsg_alloc_simple(XFRM_MSG_FLUSHPOLICY, 0);
	g_assert_true(ec_xfrm_event_matters(nlmsg_hdr(f)));
	g_autoptr(EcMessage) g = nlmsg_alloc_simple(XFRM_MSG_NEWAE, 0);
	g_assert_false(ec_xfrm_event_matters(nlmsg_hdr(g)));
}

static void test_protects(void)
{
	struct xfrm_user_tmpl t[2] = { esp("10.9.1.2", "10.9.2.2", 1),
		esp("10.9.1.2", "10.9.2.2", 1) };
	EcXfrmPolicy p = { .n_templates = 2 };

	t[0].id.proto = IPPROTO_COMP;
	t[0].optional = 1;
	memcpy(p.templates, t, sizeof(t));
	g_assert_true(ec_xfrm_protects(&p));
	g_assert_true(ec_xfrm_template(&p) == &p.templates[1]);
	p.templates[1].optional = 1;
	g_assert_false(ec_xfrm_protects(&p));
	p.templates[1].optional = 0;
	p.templates[1].id.proto = IPPROTO_AH;
	g_assert_false(ec_xfrm_protects(&p));
	p.templates[1].id.proto = IPPROTO_ESP;
	p.info.action = XFRM_POLICY_BLOCK;
	g_assert_false(ec_xfrm_protects(&p));
}

/* Security associations */

static struct xfrm_usersa_info sa_info(const char *from, const char *to, uint32_t reqid)
{
	struct xfrm_usersa_info s = { .reqid = reqid,
		.mode = XFRM_MODE_TUNNEL,
		.id = { .proto = IPPROTO_ESP, .spi = htonl(0xc0000000 + reqid) } };
	uint8_t length;

	set_prefix(from, &s.saddr, &length, &s.family);
	set_prefix(to, &s.id.daddr, &length, &s.family);
	return s;
}

static void put_aead(EcMessage *m, const char *name, unsigned icv_bits)
{
	enum {
		KEY = 20,
		SIZE = sizeof(struct xfrm_algo_aead) + KEY
	};
	g_autofree struct xfrm_algo_aead *aead = g_malloc0(SIZE);

	aead->alg_key_len = KEY * 8;
	aead->alg_icv_len = icv_bits;
	g_strlcpy(aead->alg_name, name, sizeof(aead->alg_name));
	put(m, XFRMA_ALG_AEAD, aead, SIZE);
}

static void put_crypt(EcMessage *m, const char *name)
{
	struct xfrm_algo crypt = { .alg_key_len = 0 };

	g_strlcpy(crypt.alg_name, name, sizeof(crypt.alg_name));
	put(m, XFRMA_ALG_CRYPT, &crypt, sizeof(crypt));
}

static void put_auth(EcMessage *m, const char *name, unsigned truncated_bits)
{
	struct xfrm_algo_auth auth = { .alg_trunc_len = truncated_bits };
	struct xfrm_algo plain = { .alg_key_len = 0 };

	g_strlcpy(auth.alg_name, name, sizeof(auth.alg_name));
	g_strlcpy(plain.alg_name, name, sizeof(plain.alg_name));
	put(m, XFRMA_ALG_AUTH, &plain, sizeof(plain));
	if (truncated_bits)
		put(m, XFRMA_ALG_AUTH_TRUNC, &auth, sizeof(auth));
}

static EcXfrmSa parsed(EcMessage *m)
{
	EcXfrmSa sa;

	g_assert_cmpint(ec_xfrm_sa_parse(nlmsg_hdr(m), &sa), ==, 1);
	nlmsg_free(m);
	return sa;
}

static EcXfrmSa gcm(uint8_t mode, bool nat)
{
	struct xfrm_usersa_info info = sa_info("10.9.1.2", "10.9.2.2", 1);
	const struct xfrm_encap_tmpl encap = { .encap_type = UDP_ENCAP_ESPINUDP };

	info.mode = mode;
	EcMessage *m = message(XFRM_MSG_NEWSA, &info, sizeof(info));
	put_aead(m, "rfc4106(gcm(aes))", 128);
	if (nat)
		put(m, XFRMA_ENCAP, &encap, sizeof(encap));
	return parsed(m);
}

static EcXfrmSa classic(const char *crypt, const char *auth, unsigned bits)
{
	struct xfrm_usersa_info info = sa_info("10.9.1.2", "10.9.2.2", 1);
	EcMessage *m = message(XFRM_MSG_NEWSA, &info, sizeof(info));

	put_crypt(m, crypt);
	put_auth(m, auth, bits);
	return parsed(m);
}

static void test_mtu_known(void)
{
	EcXfrmSa tunnel = gcm(XFRM_MODE_TUNNEL, false), nat = gcm(XFRM_MODE_TUNNEL, true),
		 transport = gcm(XFRM_MODE_TRANSPORT, false);

	g_assert_cmpuint(ec_xfrm_mtu(&tunnel, 1500), ==, 1446);
	g_assert_cmpuint(ec_xfrm_mtu(&transport, 1500), ==, 1466);
	g_assert_cmpuint(ec_xfrm_mtu(&nat, 1500), ==, 1438);
	g_assert_cmpuint(ec_xfrm_mtu(&tunnel, 1280), ==, 1226);
	g_assert_cmpuint(ec_xfrm_mtu(&tunnel, 9000), ==, 8946);
	for (uint32_t mtu = 0; mtu < 56; mtu++)
		g_assert_cmpuint(ec_xfrm_mtu(&tunnel, mtu), ==, 0);
	tunnel.family = AF_INET6;
	transport.family = AF_INET6;
	g_assert_cmpuint(ec_xfrm_mtu(&tunnel, 1500), ==, 1426);
	g_assert_cmpuint(ec_xfrm_mtu(&transport, 1500), ==, 1466);
}

static void test_mtu_algorithms(void)
{
	static const struct {
		const char *crypt, *auth;
		unsigned bits, mtu;
		bool encrypts;
	} rows[] = {
		/* 1500 - 20 outer - 8 ESP - IV - ICV, down to whole blocks, less 2. */
		{ "cbc(aes)", "hmac(sha256)", 128, 1438, true },
		{ "cbc(aes)", "hmac(sha1)", 96, 1438, true },
		{ "cbc(aes)", "hmac(sha1)", 0, 1438, true },
		{ "cbc(aes)", "hmac(sha512)", 256, 1422, true },
		{ "cbc(aes)", "hmac(whirlpool)", 0, 1422, true },
		{ "cbc(des3_ede)", "hmac(md5)", 96, 1446, true },
		{ "rfc3686(ctr(aes))", "hmac(sha256)", 128, 1446, true },
		{ "ecb(cipher_null)", "hmac(sha256)", 128, 1454, false },
		{ "new(cipher)", "hmac(sha256)", 128, 1438, true },
	};

	for (size_t i = 0; i < EC_ELEMENTS(rows); i++) {
		EcXfrmSa sa = classic(rows[i].crypt, rows[i].auth, rows[i].bits);

		g_assert_cmpstr(sa.algorithm, ==, rows[i].crypt);
		g_assert_cmpuint(ec_xfrm_mtu(&sa, 1500), ==, rows[i].mtu);
		g_assert_true(sa.encrypts == rows[i].encrypts);
		g_assert_true(sa.usable);
	}
}

static void test_aeads(void)
{
	static const struct {
		const char *name;
		unsigned bits, mtu;
		bool encrypts;
	} rows[] = {
		{ "rfc4106(gcm(aes))", 64, 1454, true },
		{ "rfc4309(ccm(aes))", 128, 1446, true },
		{ "rfc7539esp(chacha20,poly1305)", 128, 1446, true },
		{ "rfc4543(gcm(aes))", 128, 1446, false },
	};

	for (size_t i = 0; i < EC_ELEMENTS(rows); i++) {
		struct xfrm_usersa_info info = sa_info("10.9.1.2", "10.9.2.2", 1);
		EcMessage *m = message(XFRM_MSG_NEWSA, &info, sizeof(info));

		put_aead(m, rows[i].name, rows[i].bits);
		EcXfrmSa sa = parsed(m);
		g_assert_cmpuint(ec_xfrm_mtu(&sa, 1500), ==, rows[i].mtu);
		g_assert_true(sa.encrypts == rows[i].encrypts);
	}
}

static void test_more_templates(void)
{
	EcXfrmSa sa = gcm(XFRM_MODE_TUNNEL, false);
	EcXfrmPolicy p = { .n_templates = 1, .templates = { esp("10.9.1.2", "10.9.2.2", 1) } };

	g_assert_cmpuint(ec_xfrm_policy_mtu(&p, &sa, 1500), ==, 1446);
	p.templates[1] = p.templates[0];
	p.templates[0].id.proto = IPPROTO_COMP;
	p.n_templates = 2;
	g_assert_cmpuint(ec_xfrm_policy_mtu(&p, &sa, 1500), <, 1400);
	g_assert_cmpuint(ec_xfrm_policy_mtu(&p, &sa, 50), ==, 0);
}

static void add_sa(EcXfrm *x, const struct xfrm_usersa_info *info, bool keys)
{
	EcMessage *m = message(XFRM_MSG_NEWSA, info, sizeof(*info));

	if (keys)
		put_aead(m, "rfc4106(gcm(aes))", 128);
	EcXfrmSa sa = parsed(m);
	g_array_append_val(x->sas, sa);
}

static uint32_t serves(const EcXfrm *x, const EcXfrmPolicy *p, const EcXfrmPacket *packet)
{
	const EcXfrmSa *sa = ec_xfrm_sa_for(x, p, packet);

	return sa ? ntohl(sa->id.spi) : 0;
}

static void test_sa(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info info = out("10.50.1.0/24", "10.50.2.0/24", 10);
	const EcXfrmPacket packet = gre("10.50.1.1", "10.50.2.1");
	struct xfrm_usersa_info wrong = sa_info("10.9.1.2", "10.9.2.2", 2),
				back = sa_info("10.9.2.2", "10.9.1.2", 1),
				larval = sa_info("10.9.1.2", "10.9.2.2", 1),
				transport = sa_info("10.9.1.2", "10.9.2.2", 1),
				old = sa_info("10.9.1.2", "10.9.2.2", 1), young = old;

	add_esp(x, &info, 1);
	const EcXfrmPolicy *p = &g_array_index(x->policies, EcXfrmPolicy, 0);
	add_sa(x, &wrong, true);
	add_sa(x, &back, true);
	transport.mode = XFRM_MODE_TRANSPORT;
	add_sa(x, &transport, true);
	add_sa(x, &larval, false);
	larval.id.spi = 0;
	add_sa(x, &larval, true);
	g_assert_cmpuint(serves(x, p, &packet), ==, 0);
	g_assert_cmpuint(serves(x, p, NULL), ==, 0);
	old.curlft.add_time = 1000;
	young.curlft.add_time = 1001;
	young.id.spi = htonl(7);
	add_sa(x, &young, true);
	add_sa(x, &old, true);
	g_assert_cmpuint(serves(x, p, &packet), ==, 7);
	g_assert_cmpuint(serves(x, p, NULL), ==, 7);
	g_array_index(x->policies, EcXfrmPolicy, 0).if_id = 5;
	g_assert_cmpuint(serves(x, p, &packet), ==, 0);
}

static void test_sa_transport(void)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct xfrm_userpolicy_info info = out("10.9.1.2", "10.9.2.0/24", 10);
	struct xfrm_user_tmpl t = {
		.id.proto = IPPROTO_ESP, .family = AF_INET, .reqid = 1, .mode = XFRM_MODE_TRANSPORT
	};
	EcXfrmPacket packet = gre("10.9.1.2", "10.9.2.2");
	struct xfrm_usersa_info sa = sa_info("10.9.1.2", "10.9.2.2", 1);

	add_policy(x, &info, &t, 0, NULL);
	sa.mode = XFRM_MODE_TRANSPORT;
	sa.sel = selector("10.9.1.2", "10.9.2.2");
	add_sa(x, &sa, true);
	const EcXfrmPolicy *p = &g_array_index(x->policies, EcXfrmPolicy, 0);
	g_assert_cmpuint(serves(x, p, &packet), !=, 0);
	g_assert_cmpuint(serves(x, p, NULL), !=, 0);
	EcAddress gateway = ec_xfrm_gateway(p, &packet), expected = unit_address("10.9.2.2");
	g_assert_true(ec_address_equal(&gateway, &expected));
	gateway = ec_xfrm_gateway(p, NULL);
	g_assert_cmpint(gateway.family, ==, AF_UNSPEC);
	packet.target = unit_address("10.9.2.3");
	g_assert_cmpuint(serves(x, p, &packet), ==, 0);
	g_array_index(x->sas, EcXfrmSa, 0).sel.proto = IPPROTO_TCP;
	packet.target = unit_address("10.9.2.2");
	g_assert_cmpuint(serves(x, p, &packet), ==, 0);
}

static void test_sa_not_esp(void)
{
	struct xfrm_usersa_info info = sa_info("10.9.1.2", "10.9.2.2", 1);
	EcXfrmSa sa;

	info.id.proto = IPPROTO_AH;
	g_autoptr(EcMessage) m = message(XFRM_MSG_NEWSA, &info, sizeof(info));
	g_assert_cmpint(ec_xfrm_sa_parse(nlmsg_hdr(m), &sa), ==, 0);
}

/* Cut or altered anywhere, a message is refused or its whole attributes are used; nothing behind it
 * is read, which the address sanitizer watches. */
static void test_damaged(void)
{
	struct xfrm_userpolicy_info policy = out("10.50.1.0/24", "10.50.2.0/24", 10);
	const struct xfrm_user_tmpl t = esp("10.9.1.2", "10.9.2.2", 1);
	const struct xfrm_mark mark = { 1, 1 };
	struct xfrm_usersa_info info = sa_info("10.9.1.2", "10.9.2.2", 1);
	g_autoptr(EcMessage) a = policy_message(&policy, &t, 3, &mark);
	g_autoptr(EcMessage) b = message(XFRM_MSG_NEWSA, &info, sizeof(info));
	struct nlmsghdr *whole[] = { nlmsg_hdr(a), nlmsg_hdr(b) };
	EcXfrmPolicy p;
	EcXfrmSa sa;

	put_aead(b, "rfc4106(gcm(aes))", 128);
	for (size_t i = 0; i < EC_ELEMENTS(whole); i++) {
		for (uint32_t n = NLMSG_HDRLEN; n < whole[i]->nlmsg_len; n++) {
			g_autofree struct nlmsghdr *cut = g_memdup2(whole[i], n);
			g_autofree uint8_t *flipped = g_memdup2(whole[i], whole[i]->nlmsg_len);

			cut->nlmsg_len = n;
			flipped[n] ^= 0xff;
			(void)ec_xfrm_policy_parse(cut, &p);
			(void)ec_xfrm_sa_parse(cut, &sa);
			(void)ec_xfrm_event_matters(cut);
			(void)ec_xfrm_policy_parse((void *)flipped, &p);
			(void)ec_xfrm_sa_parse((void *)flipped, &sa);
		}
	}
	for (uint32_t n = NLMSG_HDRLEN; n < NLMSG_HDRLEN + sizeof(policy); n++) {
		g_autofree struct nlmsghdr *cut = g_memdup2(whole[0], n);

		cut->nlmsg_len = n;
		g_assert_cmpint(ec_xfrm_policy_parse(cut, &p), ==, -EBADMSG);
	}
}

static void test_too_many_templates(void)
{
	struct xfrm_userpolicy_info policy = out("10.50.1.0/24", "10.50.2.0/24", 10);
	const struct xfrm_user_tmpl t[EC_XFRM_TEMPLATES + 1] = { 0 };
	EcXfrmPolicy p;

	g_autoptr(EcMessage) a = policy_message(&policy, NULL, 0, NULL);
	put(a, XFRMA_TMPL, t, sizeof(t[0]) * EC_XFRM_TEMPLATES);
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(a), &p), ==, 1);
	g_assert_cmpuint(p.n_templates, ==, EC_XFRM_TEMPLATES);
	g_autoptr(EcMessage) b = policy_message(&policy, NULL, 0, NULL);
	put(b, XFRMA_TMPL, t, sizeof(t));
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(b), &p), ==, -EBADMSG);
	g_autoptr(EcMessage) c = policy_message(&policy, NULL, 0, NULL);
	put(c, XFRMA_TMPL, t, sizeof(t[0]) + 4);
	g_assert_cmpint(ec_xfrm_policy_parse(nlmsg_hdr(c), &p), ==, -EBADMSG);
}

static void test_names(void)
{
	EcXfrmPolicy p = { .info = out("10.50.1.0/24", "10.50.2.1", 10) };
	char name[96], other[96];

	ec_xfrm_name(&p, name);
	g_assert_cmpstr(name, ==, "ipsec-10.50.1.0/24-10.50.2.1/32");
	p.info.sel.proto = IPPROTO_UDP;
	p.info.sel.dport = htons(4789);
	p.info.sel.dport_mask = 0xffff;
	ec_xfrm_name(&p, name);
	g_assert_cmpstr(name, ==, "ipsec-10.50.1.0/24[17]-10.50.2.1/32[17/4789]");
	p.mark = (struct xfrm_mark){ 1, 0xff };
	ec_xfrm_name(&p, other);
	g_assert_cmpstr(name, !=, other);
	p.info.sel = selector("fd00:1111:2222:3333:4444:5555:6666:7777",
			"fd00:1111:2222:3333:4444:5555:6666:8888");
	ec_xfrm_name(&p, name);
	g_assert_cmpuint(strlen(name), ==, strlen("ipsec-") + 40);
	p.info.sel.proto = IPPROTO_GRE;
	ec_xfrm_name(&p, other);
	g_assert_cmpstr(name, !=, other);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/xfrm/prefixes", test_prefixes);
	g_test_add_func("/xfrm/prefix-zero", test_prefix_zero);
	g_test_add_func("/xfrm/direction", test_direction);
	g_test_add_func("/xfrm/protocol-and-ports", test_protocol_and_ports);
	g_test_add_func("/xfrm/unknown-meets-bypass", test_unknown_meets_bypass);
	g_test_add_func("/xfrm/identity", test_identity);
	g_test_add_func("/xfrm/priorities", test_priorities);
	g_test_add_func("/xfrm/equal-priority-single", test_equal_priority_single);
	g_test_add_func("/xfrm/not-ours", test_not_ours);
	g_test_add_func("/xfrm/events", test_events);
	g_test_add_func("/xfrm/protects", test_protects);
	g_test_add_func("/xfrm/mtu-known", test_mtu_known);
	g_test_add_func("/xfrm/mtu-algorithms", test_mtu_algorithms);
	g_test_add_func("/xfrm/aeads", test_aeads);
	g_test_add_func("/xfrm/more-templates", test_more_templates);
	g_test_add_func("/xfrm/sa", test_sa);
	g_test_add_func("/xfrm/sa-transport", test_sa_transport);
	g_test_add_func("/xfrm/sa-not-esp", test_sa_not_esp);
	g_test_add_func("/xfrm/damaged", test_damaged);
	g_test_add_func("/xfrm/too-many-templates", test_too_many_templates);
	g_test_add_func("/xfrm/names", test_names);
	return g_test_run();
}

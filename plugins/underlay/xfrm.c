/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/xfrm.h"

#include <errno.h>
#include <linux/udp.h>
#include <string.h>

/*
 * DOC: Theory of operation
 *
 * The kernel has no request "which policy applies to this packet", so its choice is repeated here
 * on a dump: lowest priority value first. Among equals it takes the older one, which has the lower
 * index, an update keeps it. Only where one of the two names single hosts do kernels differ; then
 * the one that protects less is taken to win.
 *
 * What is not known of a packet (the source port of VXLAN, which changes with the flow inside) may
 * be anything. A policy that protects must cover all of it; one that lets pass or blocks need only
 * be able to meet it.
 */

#define PORT_UNPRIVILEGED 1024 /* tunnels never send from below */

typedef enum Match {
	MATCH_NO,
	MATCH_MAYBE,
	MATCH_YES,
} Match;

EcXfrm *ec_xfrm_new(void)
{
	EcXfrm *x = g_new0(EcXfrm, 1);

	x->policies = g_array_new(FALSE, FALSE, sizeof(EcXfrmPolicy));
	x->sas = g_array_new(FALSE, FALSE, sizeof(EcXfrmSa));
	return x;
}

EcXfrm *ec_xfrm_free(EcXfrm *x)
{
	if (!x)
		return NULL;
	g_array_unref(x->policies);
	g_array_unref(x->sas);
	g_free(x);
	return NULL;
}

/* Messages */

static bool attribute(const struct nlattr *a, void *ret, size_t size)
{
	if (!a)
		return true;
	if ((size_t)nla_len(a) < size)
		return false;
	memcpy(ret, nla_data(a), size);
	return true;
}

/* Splits a message: the fixed part of `size` bytes and attributes. */
static int parse(const struct nlmsghdr *h, size_t size, struct nlattr *tb[static XFRMA_MAX + 1])
{
	if (h->nlmsg_len < NLMSG_HDRLEN + NLMSG_ALIGN(size))
		return -EBADMSG;
	return nlmsg_parse((struct nlmsghdr *)h, (int)size, tb, XFRMA_MAX, NULL) < 0 ? -EBADMSG : 0;
}

static bool is_family(unsigned family)
{
	return family == AF_INET || family == AF_INET6;
}

static int parse_policy_info(
		const struct nlmsghdr *h, struct nlattr *tb[static XFRMA_MAX + 1], EcXfrmPolicy *p)
{
	bool deleted = h->nlmsg_type == XFRM_MSG_DELPOLICY;
	size_t size = deleted                               ? sizeof(struct xfrm_userpolicy_id)
		      : h->nlmsg_type == XFRM_MSG_POLEXPIRE ? sizeof(struct xfrm_user_polexpire)
							    : sizeof(p->info);
	int r = parse(h, size, tb);

	if (r < 0)
		return r;
	if (!deleted)
		memcpy(&p->info, nlmsg_data(h), sizeof(p->info));
	else if (!tb[XFRMA_POLICY] || !attribute(tb[XFRMA_POLICY], &p->info, sizeof(p->info)))
		return -EBADMSG;
	return 0;
}

int ec_xfrm_policy_parse(const struct nlmsghdr *h, EcXfrmPolicy *ret)
{
	struct nlattr *tb[XFRMA_MAX + 1];
	struct xfrm_userpolicy_type type = { .type = XFRM_POLICY_TYPE_MAIN };
	EcXfrmPolicy p = { 0 };
	int r = parse_policy_info(h, tb, &p);

	if (r < 0)
		return r;
	if (!attribute(tb[XFRMA_POLICY_TYPE], &type, sizeof(type)) ||
			!attribute(tb[XFRMA_MARK], &p.mark, sizeof(p.mark)) ||
			!attribute(tb[XFRMA_IF_ID], &p.if_id, sizeof(p.if_id)))
		return -EBADMSG;
	if (tb[XFRMA_TMPL]) {
		size_t n = (size_t)nla_len(tb[XFRMA_TMPL]);

		if (n % sizeof(p.templates[0]) || n > sizeof(p.templates))
			return -EBADMSG;
		memcpy(p.templates, nla_data(tb[XFRMA_TMPL]), n);
		p.n_templates = (unsigned)(n / sizeof(p.templates[0]));
	}
	if (!is_family(p.info.sel.family))
		return -EBADMSG;
	*ret = p;
	return p.info.dir < XFRM_POLICY_MAX && type.type == XFRM_POLICY_TYPE_MAIN &&
	       !(p.info.action == XFRM_POLICY_BLOCK && p.info.priority == EC_XFRM_GUARD_PRIORITY);
}

/* What encryption costs in each packet: initialisation vector, and the block it fills up to. */
static const struct Cipher {
	const char *name;
	uint8_t iv, block;
	bool encrypts;
} ciphers[] = {
	{ "rfc4106(gcm(aes))", 8, 1, true },
	{ "rfc4309(ccm(aes))", 8, 1, true },
	{ "rfc7539esp(chacha20,poly1305)", 8, 1, true },
	{ "rfc4543(gcm(aes))", 8, 1, false },
	{ "cbc(aes)", 16, 16, true },
	{ "cbc(camellia)", 16, 16, true },
	{ "cbc(serpent)", 16, 16, true },
	{ "cbc(twofish)", 16, 16, true },
	{ "cbc(sm4)", 16, 16, true },
	{ "cbc(des3_ede)", 8, 8, true },
	{ "cbc(des)", 8, 8, true },
	{ "cbc(blowfish)", 8, 8, true },
	{ "cbc(cast5)", 8, 8, true },
	{ "rfc3686(ctr(aes))", 8, 1, true },
	{ "rfc3686(ctr(camellia))", 8, 1, true },
	{ "rfc3686(ctr(sm4))", 8, 1, true },
	{ "ecb(cipher_null)", 0, 1, false },
	{ "cipher_null", 0, 1, false },
};

/* Where only the algorithm is told, how much of its digest each packet carries
 * (net/xfrm/xfrm_algo.c). */
static const struct Digest {
	const char *name;
	uint8_t bytes;
} digests[] = {
	{ "digest_null", 0 },
	{ "hmac(md5)", 12 },
	{ "hmac(sha1)", 12 },
	{ "hmac(sha256)", 12 },
	{ "hmac(sha384)", 24 },
	{ "hmac(sha512)", 32 },
	{ "hmac(rmd160)", 12 },
	{ "xcbc(aes)", 12 },
	{ "cmac(aes)", 12 },
	{ "hmac(sm3)", 32 },
};

static void set_cipher(EcXfrmSa *sa, const char name[static 64])
{
	/* One that is not known is taken for the costliest of those that are. */
	struct Cipher found = { "", 16, 16, true };

	g_strlcpy(sa->algorithm, name, sizeof(sa->algorithm));
	for (size_t i = 0; i < EC_ELEMENTS(ciphers); i++) {
		if (g_str_equal(ciphers[i].name, sa->algorithm))
			found = ciphers[i];
	}
	sa->usable = true;
	sa->iv = found.iv;
	sa->block = found.block;
	sa->encrypts = found.encrypts;
}

static uint8_t digest_bytes(char name[static 64])
{
	name[63] = '\0';
	for (size_t i = 0; i < EC_ELEMENTS(digests); i++) {
		if (g_str_equal(digests[i].name, name))
			return digests[i].bytes;
	}
	return 32;
}

static bool set_algorithms(EcXfrmSa *sa, struct nlattr *tb[static XFRMA_MAX + 1])
{
	struct xfrm_algo_aead aead;
	struct xfrm_algo_auth truncated;
	struct xfrm_algo crypt, auth;

	if (!attribute(tb[XFRMA_ALG_AEAD], &aead, sizeof(aead)) ||
			!attribute(tb[XFRMA_ALG_CRYPT], &crypt, sizeof(crypt)) ||
			!attribute(tb[XFRMA_ALG_AUTH_TRUNC], &truncated, sizeof(truncated)) ||
			!attribute(tb[XFRMA_ALG_AUTH], &auth, sizeof(auth)))
		return false;
	if (tb[XFRMA_ALG_AEAD]) {
		set_cipher(sa, aead.alg_name);
		sa->icv = (uint8_t)MIN(aead.alg_icv_len / 8, 64);
		return true;
	}
	if (tb[XFRMA_ALG_CRYPT])
		set_cipher(sa, crypt.alg_name);
	if (tb[XFRMA_ALG_AUTH_TRUNC])
		sa->icv = (uint8_t)MIN(truncated.alg_trunc_len / 8, 64);
	else if (tb[XFRMA_ALG_AUTH])
		sa->icv = digest_bytes(auth.alg_name);
	return true;
}

static uint8_t encap_bytes(uint16_t type)
{
	switch (type) {
	case UDP_ENCAP_ESPINUDP_NON_IKE:
		return 16;
	case 7: /* TCP_ENCAP_ESPINTCP: a length; TCP itself cuts as it likes */
		return 2;
	default:
		return 8;
	}
}

int ec_xfrm_sa_parse(const struct nlmsghdr *h, EcXfrmSa *ret)
{
	struct nlattr *tb[XFRMA_MAX + 1];
	struct xfrm_usersa_info info;
	struct xfrm_encap_tmpl encap;
	EcXfrmSa sa = { .block = 1 };
	int r = parse(h, sizeof(info), tb);

	if (r < 0)
		return r;
	memcpy(&info, nlmsg_data(h), sizeof(info));
	if (info.id.proto != IPPROTO_ESP)
		return 0;
	sa.sel = info.sel;
	sa.id = info.id;
	sa.saddr = info.saddr;
	sa.added = info.curlft.add_time;
	sa.reqid = info.reqid;
	sa.family = info.family;
	sa.mode = info.mode;
	if (!is_family(sa.family) || !attribute(tb[XFRMA_MARK], &sa.mark, sizeof(sa.mark)) ||
			!attribute(tb[XFRMA_IF_ID], &sa.if_id, sizeof(sa.if_id)) ||
			!attribute(tb[XFRMA_ENCAP], &encap, sizeof(encap)) ||
			!set_algorithms(&sa, tb))
		return -EBADMSG;
	if (tb[XFRMA_ENCAP])
		sa.encap_bytes = encap_bytes(encap.encap_type);
	if (sa.id.spi == 0)
		sa.usable = false;
	*ret = sa;
	return 1;
}

bool ec_xfrm_event_matters(const struct nlmsghdr *h)
{
	EcXfrmPolicy p;

	switch (h->nlmsg_type) {
	case XFRM_MSG_NEWPOLICY:
	case XFRM_MSG_UPDPOLICY:
		return ec_xfrm_policy_parse(h, &p) != 0;
	case XFRM_MSG_POLEXPIRE: /* a soft one only calls for a new one */
		return nlmsg_datalen(h) < (int)sizeof(struct xfrm_user_polexpire) ||
		       ((const struct xfrm_user_polexpire *)nlmsg_data(h))->hard;
	case XFRM_MSG_EXPIRE:
		return nlmsg_datalen(h) < (int)sizeof(struct xfrm_user_expire) ||
		       ((const struct xfrm_user_expire *)nlmsg_data(h))->hard;
	case XFRM_MSG_NEWSA:
	case XFRM_MSG_UPDSA:
	case XFRM_MSG_DELSA:
	case XFRM_MSG_FLUSHSA:
	case XFRM_MSG_DELPOLICY: /* the guard's own have to be put back */
	case XFRM_MSG_FLUSHPOLICY:
	case XFRM_MSG_MIGRATE:
	case XFRM_MSG_MAPPING:
		return true;
	default:
		return false;
	}
}

/* Requests */

typedef struct Dump {
	EcXfrm *x;
	int error; /* the exchange forgets all but the last message's */
} Dump;

static int on_message(struct nlmsghdr *h, void *userdata)
{
	Dump *d = userdata;
	EcXfrmPolicy p;
	EcXfrmSa sa;
	int r = 0;

	if (h->nlmsg_type == XFRM_MSG_NEWPOLICY) {
		r = ec_xfrm_policy_parse(h, &p);
		if (r > 0)
			g_array_append_val(d->x->policies, p);
	} else if (h->nlmsg_type == XFRM_MSG_NEWSA) {
		r = ec_xfrm_sa_parse(h, &sa);
		if (r > 0)
			g_array_append_val(d->x->sas, sa);
	}
	if (r < 0)
		d->error = r;
	return 0;
}

static int dump_one(
		struct nl_sock *sk, int type, EcXfrm *x, const char *what, sd_bus_error *ret_error)
{
	Dump d = { .x = x };
	EcNetlinkAnswer a = { .on_message = on_message, .userdata = &d };
	g_autoptr(EcMessage) m = nlmsg_alloc_simple(type, NLM_F_DUMP);
	/* Of policies the kernel skips an identity first, of SAs nothing. */
	const struct xfrm_userpolicy_id policy = { 0 };
	size_t size = type == XFRM_MSG_GETPOLICY ? sizeof(policy) : 0;
	int r = !m ? -ENOMEM
		: size && nlmsg_append(m, (void *)&policy, size, NLMSG_ALIGNTO) < 0
				? -ENOBUFS
				: ec_netlink_exchange(sk, m, &a);

	if (r == 0)
		r = d.error;
	return r < 0 ? ec_netlink_fail(r, &a, ret_error, "IPsec %s cannot be read", what) : 0;
}

int ec_xfrm_dump(struct nl_sock *sk, EcXfrm *x, sd_bus_error *ret_error)
{
	g_array_set_size(x->policies, 0);
	g_array_set_size(x->sas, 0);
	int r = dump_one(sk, XFRM_MSG_GETPOLICY, x, "policies", ret_error);
	/* Without a policy no SA matters. */
	if (r == 0 && x->policies->len > 0)
		r = dump_one(sk, XFRM_MSG_GETSA, x, "security associations", ret_error);
	return r;
}

int ec_xfrm_acquire(struct nl_sock *sk, const EcXfrmPolicy *p)
{
	EcNetlinkAnswer a = { 0 };
	g_autoptr(EcMessage) m = nlmsg_alloc_simple(XFRM_MSG_ACQUIRE, 0);
	struct xfrm_user_acquire ask = {
		.id = p->templates[0].id,
		.saddr = p->templates[0].saddr,
		.sel = p->info.sel,
		.policy = p->info,
	};

	if (!m || nlmsg_append(m, &ask, sizeof(ask), NLMSG_ALIGNTO) < 0 ||
			nla_put(m, XFRMA_TMPL, (int)(p->n_templates * sizeof(p->templates[0])),
					p->templates) < 0 ||
			(p->mark.m && nla_put(m, XFRMA_MARK, sizeof(p->mark), &p->mark) < 0) ||
			(p->if_id && nla_put_u32(m, XFRMA_IF_ID, p->if_id) < 0))
		return -ENOBUFS;
	return ec_netlink_exchange(sk, m, &a);
}

/* Matching */

static EcAddress to_address(const xfrm_address_t *a, unsigned family)
{
	EcAddress ret = { .family = AF_UNSPEC };
	static const uint8_t zero[16];

	if (!is_family(family))
		return ret;
	size_t size = family == AF_INET ? 4 : 16;
	if (memcmp(a, zero, size) == 0)
		return ret;
	ret.family = (int)family;
	memcpy(ret.bytes, a, size);
	return ret;
}

static bool prefix_equal(const void *a, const void *b, unsigned bits)
{
	const uint8_t *p = a, *q = b;
	unsigned bytes = bits / 8, rest = bits % 8;

	return memcmp(p, q, bytes) == 0 &&
	       (rest == 0 || ((p[bytes] ^ q[bytes]) & (0xff << (8 - rest)) & 0xff) == 0);
}

static Match match_address(
		const EcAddress *a, const xfrm_address_t *prefix, unsigned bits, unsigned family)
{
	if (bits == 0)
		return MATCH_YES;
	if (a->family == AF_UNSPEC)
		return MATCH_MAYBE;
	return prefix_equal(a->bytes, prefix, MIN(bits, family == AF_INET ? 32u : 128u)) ? MATCH_YES
											 : MATCH_NO;
}

static Match match_target_port(const struct xfrm_selector *sel, const EcXfrmPacket *packet)
{
	if (sel->dport_mask == 0)
		return MATCH_YES;
	if (packet->target_port == 0)
		return MATCH_MAYBE;
	return ((htons(packet->target_port) ^ sel->dport) & sel->dport_mask) ? MATCH_NO : MATCH_YES;
}

static Match match_source_port(const struct xfrm_selector *sel)
{
	if (sel->sport_mask == 0)
		return MATCH_YES;
	return sel->sport_mask == 0xffff && ntohs(sel->sport) < PORT_UNPRIVILEGED ? MATCH_NO
										  : MATCH_MAYBE;
}

static Match match_protocol(uint8_t wanted, uint8_t protocol)
{
	if (wanted == 0 || wanted == protocol)
		return MATCH_YES;
	return protocol == 0 ? MATCH_MAYBE : MATCH_NO;
}

/* As xfrm_selector_match() in net/xfrm/xfrm_policy.c. */
static Match match_selector(const struct xfrm_selector *sel, const EcXfrmPacket *packet)
{
	if (sel->family != packet->target.family ||
			(sel->ifindex && sel->ifindex != packet->ifindex))
		return MATCH_NO;
	const Match parts[] = {
		match_address(&packet->target, &sel->daddr, sel->prefixlen_d, sel->family),
		match_address(&packet->source, &sel->saddr, sel->prefixlen_s, sel->family),
		match_protocol(sel->proto, packet->protocol),
		match_target_port(sel, packet),
		match_source_port(sel),
	};
	Match least = MATCH_YES;
	for (size_t i = 0; i < EC_ELEMENTS(parts); i++)
		least = MIN(least, parts[i]);
	return least;
}

const struct xfrm_user_tmpl *ec_xfrm_template(const EcXfrmPolicy *p)
{
	for (unsigned i = 0; i < p->n_templates; i++) {
		if (p->templates[i].id.proto == IPPROTO_ESP && !p->templates[i].optional)
			return &p->templates[i];
	}
	return NULL;
}

bool ec_xfrm_protects(const EcXfrmPolicy *p)
{
	return p->info.action == XFRM_POLICY_ALLOW && ec_xfrm_template(p);
}

static bool is_single(const struct xfrm_selector *sel)
{
	unsigned all = sel->family == AF_INET ? 32 : 128;

	return sel->prefixlen_d >= all && sel->prefixlen_s >= all;
}

static bool is_before(const EcXfrmPolicy *a, const EcXfrmPolicy *b)
{
	if (a->info.priority != b->info.priority)
		return a->info.priority < b->info.priority;
	if (is_single(&a->info.sel) != is_single(&b->info.sel) &&
			ec_xfrm_protects(a) != ec_xfrm_protects(b))
		return !ec_xfrm_protects(a);
	return a->info.index < b->info.index;
}

const EcXfrmPolicy *ec_xfrm_policy_for(
		const EcXfrm *x, uint8_t dir, const EcXfrmPacket *packet, bool protecting)
{
	const EcXfrmPolicy *best = NULL;

	for (guint i = 0; i < x->policies->len; i++) {
		const EcXfrmPolicy *p = &g_array_index(x->policies, EcXfrmPolicy, i);

		if (p->info.dir != dir || p->if_id != packet->if_id ||
				(packet->mark & p->mark.m) != p->mark.v ||
				(protecting && !ec_xfrm_protects(p)))
			continue;
		Match m = match_selector(&p->info.sel, packet);
		if (m == MATCH_NO || (m == MATCH_MAYBE && ec_xfrm_protects(p)))
			continue;
		if (!best || is_before(p, best))
			best = p;
	}
	return best;
}

const EcXfrmPolicy *ec_xfrm_inbound(const EcXfrm *x, const EcXfrmPolicy *out)
{
	const struct xfrm_selector *o = &out->info.sel;

	for (guint i = 0; i < x->policies->len; i++) {
		const EcXfrmPolicy *p = &g_array_index(x->policies, EcXfrmPolicy, i);
		const struct xfrm_selector *s = &p->info.sel;

		if (p->info.dir == XFRM_POLICY_IN && p->if_id == out->if_id &&
				ec_xfrm_protects(p) && s->family == o->family &&
				s->prefixlen_d <= o->prefixlen_s &&
				s->prefixlen_s <= o->prefixlen_d &&
				prefix_equal(&s->daddr, &o->saddr, s->prefixlen_d) &&
				prefix_equal(&s->saddr, &o->daddr, s->prefixlen_s) &&
				(s->proto == 0 || s->proto == o->proto))
			return p;
	}
	return NULL;
}

static bool same_end(const xfrm_address_t *a, const xfrm_address_t *b, unsigned family)
{
	EcAddress p = to_address(a, family), q = to_address(b, family);

	return p.family == AF_UNSPEC || q.family == AF_UNSPEC || ec_address_equal(&p, &q);
}

/* Do the SA's ends fit? In transport mode they are the packet's own. */
static bool ends_fit(const EcXfrmSa *sa, const EcXfrmPolicy *p, const struct xfrm_user_tmpl *t,
		const EcXfrmPacket *packet)
{
	const struct xfrm_selector *sel = &p->info.sel;

	if (t->mode != XFRM_MODE_TRANSPORT)
		return sa->family == t->family &&
		       same_end(&sa->id.daddr, &t->id.daddr, sa->family) &&
		       same_end(&sa->saddr, &t->saddr, sa->family);
	if (sa->family != sel->family)
		return false;
	if (!packet)
		return prefix_equal(&sa->id.daddr, &sel->daddr, sel->prefixlen_d) &&
		       prefix_equal(&sa->saddr, &sel->saddr, sel->prefixlen_s);
	EcAddress source = to_address(&sa->saddr, sa->family),
		  target = to_address(&sa->id.daddr, sa->family);
	return ec_address_equal(&target, &packet->target) &&
	       (source.family == AF_UNSPEC || ec_address_equal(&source, &packet->source));
}

/* As xfrm_state_find() and xfrm_state_look_at() in net/xfrm/xfrm_state.c: of several, as while keys
 * are exchanged, the youngest. */
const EcXfrmSa *ec_xfrm_sa_for(const EcXfrm *x, const EcXfrmPolicy *p, const EcXfrmPacket *packet)
{
	const struct xfrm_user_tmpl *t = ec_xfrm_template(p);
	const EcXfrmSa *best = NULL;

	for (guint i = 0; t && i < x->sas->len; i++) {
		const EcXfrmSa *sa = &g_array_index(x->sas, EcXfrmSa, i);
		uint32_t mark = packet ? packet->mark : p->mark.v;

		if (!sa->usable || sa->reqid != t->reqid || sa->mode != t->mode ||
				sa->if_id != p->if_id || (mark & sa->mark.m) != sa->mark.v ||
				(t->id.spi && t->id.spi != sa->id.spi) ||
				!ends_fit(sa, p, t, packet))
			continue;
		if (packet && is_family(sa->sel.family) &&
				match_selector(&sa->sel, packet) != MATCH_YES)
			continue;
		if (!best || sa->added >= best->added)
			best = sa;
	}
	return best;
}

EcAddress ec_xfrm_gateway(const EcXfrmPolicy *p, const EcXfrmPacket *packet)
{
	const struct xfrm_user_tmpl *t = ec_xfrm_template(p);
	const struct xfrm_selector *sel = &p->info.sel;
	EcAddress none = { .family = AF_UNSPEC };

	if (t && t->mode != XFRM_MODE_TRANSPORT)
		return to_address(&t->id.daddr, t->family);
	if (packet)
		return packet->target;
	return sel->prefixlen_d >= (sel->family == AF_INET ? 32 : 128)
			       ? to_address(&sel->daddr, sel->family)
			       : none;
}

/* Sizes */

static unsigned ip_size(unsigned family)
{
	return family == AF_INET6 ? 40 : 20;
}

uint32_t ec_xfrm_mtu(const EcXfrmSa *sa, uint32_t mtu)
{
	bool v6 = sa->family == AF_INET6;
	unsigned block = MAX((unsigned)sa->block, 4u), kept = 0;
	unsigned header = 8u + sa->iv + sa->encap_bytes;

	if (sa->mode == XFRM_MODE_TUNNEL)
		header += ip_size(sa->family);
	else
		kept = ip_size(sa->family);
	/* Options that carry the IPv4 header of a BEET packet. */
	if (sa->mode == XFRM_MODE_BEET && sa->sel.family != AF_INET6)
		header += v6 ? 28 : 8;
	if (mtu < header + sa->icv + kept + block)
		return 0;
	return ((mtu - header - sa->icv - kept) & ~(block - 1)) + kept - 2;
}

uint32_t ec_xfrm_policy_mtu(const EcXfrmPolicy *p, const EcXfrmSa *sa, uint32_t mtu)
{
	const struct xfrm_user_tmpl *t = ec_xfrm_template(p);
	unsigned more = 0;

	/* Compression or authentication around it, which hardly anybody has: about this much. */
	for (unsigned i = 0; i < p->n_templates; i++) {
		if (&p->templates[i] != t)
			more += p->templates[i].mode == XFRM_MODE_TUNNEL ? 64 : 44;
	}
	return mtu > more ? ec_xfrm_mtu(sa, mtu - more) : 0;
}

/* Texts */

char *ec_xfrm_selector_text(const struct xfrm_selector *sel, bool target)
{
	EcAddress a = { .family = sel->family };
	char address[INET6_ADDRSTRLEN];
	uint16_t port = ntohs(target ? sel->dport : sel->sport);
	uint16_t mask = target ? sel->dport_mask : sel->sport_mask;
	bool has_port = mask != 0;
	unsigned bits = target ? sel->prefixlen_d : sel->prefixlen_s;

	memcpy(a.bytes, target ? &sel->daddr : &sel->saddr, ec_address_size(&a));
	(void)ec_address_to_string(&a, address);
	if (!sel->proto && !has_port)
		return g_strdup_printf("%s/%u", address, bits);
	if (!has_port)
		return g_strdup_printf("%s/%u[%u]", address, bits, sel->proto);
	if (mask != htons(0xffff))
		return g_strdup_printf(
				"%s/%u[%u/%u&%#x]", address, bits, sel->proto, port, ntohs(mask));
	return g_strdup_printf("%s/%u[%u/%u]", address, bits, sel->proto, port);
}

void ec_xfrm_name(const EcXfrmPolicy *p, char ret[static 96])
{
	const struct xfrm_selector *sel = &p->info.sel;
	g_autofree char *local = ec_xfrm_selector_text(sel, false);
	g_autofree char *remote = ec_xfrm_selector_text(sel, true);
	g_autoptr(GString) name = g_string_new(NULL);

	g_string_printf(name, "ipsec-%s-%s", local, remote);
	if (p->mark.m)
		g_string_append_printf(name, "-mark-%x-%x", p->mark.v, p->mark.m);
	if (p->if_id)
		g_string_append_printf(name, "-if-%u", p->if_id);
	if (sel->ifindex || sel->user)
		g_string_append_printf(name, "-dev-%d-%u", sel->ifindex, sel->user);
	if (name->len >= 96) {
		g_autofree char *sum =
				g_compute_checksum_for_string(G_CHECKSUM_SHA256, name->str, -1);
		g_string_printf(name, "ipsec-%.40s", sum);
	}
	g_strlcpy(ret, name->str, 96);
}

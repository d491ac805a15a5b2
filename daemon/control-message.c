/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-message.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/*
 * DOC: Theory of operation
 *
 * One table says for each key how it travels (a Kind), where it lives in EcControlMessage, which
 * types of message need it and which may have it. Encoding and decoding both walk that table, so
 * what one writes the other reads.
 *
 * Decoding trusts nothing: the bytes are copied to aligned memory, taken as a{sv} that is not
 * trusted, and have to be in normal form, which bounds every offset and depth; only then single
 * values are looked at. Each known key may be there once. Unknown keys are not looked into. Bytes
 * of a message never get into a sentence.
 */

typedef struct Kind {
	const char *signature;
	const char *allowed; /* for "'KEY' is not ..." */
	/* NULL where there is nothing worth saying; needed keys are said in any case. */
	GVariant *(*pack)(const EcControlMessage *m, const void *at, bool needed);
	/* v has the type of signature. */
	bool (*unpack)(GVariant *v, EcControlMessage *m, void *at);
} Kind;

typedef struct Member {
	const char *key;
	const Kind *kind;
	size_t offset;
	unsigned needed, may; /* bits of EcControlType */
} Member;

#define BIT(type) (1u << EC_CONTROL_##type)

static const char *const types[_EC_CONTROL_TYPE_MAX] = {
	[EC_CONTROL_WELCOME] = "welcome",
	[EC_CONTROL_CHOOSE] = "choose",
	[EC_CONTROL_READY] = "ready",
	[EC_CONTROL_PING] = "ping",
	[EC_CONTROL_PONG] = "pong",
	[EC_CONTROL_BYE] = "bye",
	[EC_CONTROL_REFUSE] = "refuse",
};

static GVariant *pack_u32(const EcControlMessage *m, const void *at, bool needed)
{
	const uint32_t *p = at;

	return *p || needed ? g_variant_new_uint32(*p) : NULL;
}

static bool unpack_u32(GVariant *v, EcControlMessage *m, void *at)
{
	*(uint32_t *)at = g_variant_get_uint32(v);
	return true;
}

static GVariant *pack_u64(const EcControlMessage *m, const void *at, bool needed)
{
	const uint64_t *p = at;

	return *p || needed ? g_variant_new_uint64(*p) : NULL;
}

static bool unpack_u64(GVariant *v, EcControlMessage *m, void *at)
{
	*(uint64_t *)at = g_variant_get_uint64(v);
	return true;
}

static GVariant *pack_u16(const EcControlMessage *m, const void *at, bool needed)
{
	const uint16_t *p = at;

	return *p || needed ? g_variant_new_uint16(*p) : NULL;
}

static bool unpack_u16(GVariant *v, EcControlMessage *m, void *at)
{
	*(uint16_t *)at = g_variant_get_uint16(v);
	return true;
}

static GVariant *pack_bool(const EcControlMessage *m, const void *at, bool needed)
{
	const bool *p = at;

	return *p || needed ? g_variant_new_boolean(*p) : NULL;
}

static bool unpack_bool(GVariant *v, EcControlMessage *m, void *at)
{
	*(bool *)at = g_variant_get_boolean(v);
	return true;
}

/* Whatever was put there leaves as text that the other end takes: no half characters at the end of
 * what was cut, no line breaks of a program that was quoted. */
static char *clean_text(const char *text, size_t size)
{
	char *clean = g_utf8_make_valid(text, (gssize)strnlen(text, size - 1));

	for (char *p = clean; *p; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);

		if (!g_unichar_iscntrl(c))
			continue;
		for (char *end = g_utf8_next_char(p), *q = p; q < end; q++)
			*q = ' ';
	}
	/* Replacement characters are longer than what they replace. */
	if (strlen(clean) >= size) {
		const char *end = g_utf8_find_prev_char(clean, clean + size);

		clean[end ? end - clean : 0] = '\0';
	}
	return clean;
}

static GVariant *pack_text(const char *text, size_t size, bool needed)
{
	return *text || needed ? g_variant_new_take_string(clean_text(text, size)) : NULL;
}

static bool unpack_text(GVariant *v, char *at, size_t size)
{
	gsize n;
	const char *text = g_variant_get_string(v, &n);

	if (n < 1 || n >= size || !ec_text_is_clean(text))
		return false;
	memcpy(at, text, n + 1);
	return true;
}

static GVariant *pack_name(const EcControlMessage *m, const void *at, bool needed)
{
	return pack_text(at, EC_CONTROL_NAME_MAX, needed);
}

static bool unpack_name(GVariant *v, EcControlMessage *m, void *at)
{
	return unpack_text(v, at, EC_CONTROL_NAME_MAX);
}

static GVariant *pack_sentence(const EcControlMessage *m, const void *at, bool needed)
{
	return pack_text(at, EC_CONTROL_TEXT_MAX, needed);
}

static bool unpack_sentence(GVariant *v, EcControlMessage *m, void *at)
{
	return unpack_text(v, at, EC_CONTROL_TEXT_MAX);
}

static GVariant *pack_address(const EcControlMessage *m, const void *at, bool needed)
{
	char text[INET6_ADDRSTRLEN];

	(void)ec_address_to_string(at, text);
	return *text || needed ? g_variant_new_string(text) : NULL;
}

static bool unpack_address(GVariant *v, EcControlMessage *m, void *at)
{
	EcAddress a, *to = at;

	if (ec_address_from_string(g_variant_get_string(v, NULL), &a) < 0)
		return false;
	to->family = a.family;
	memcpy(to->bytes, a.bytes, ec_address_size(&a));
	return true;
}

static GVariant *pack_mac(const EcControlMessage *m, const void *at, bool needed)
{
	static const uint8_t none[6];

	if (memcmp(at, none, sizeof(none)) == 0 && !needed)
		return NULL;
	return g_variant_new_fixed_array(G_VARIANT_TYPE_BYTE, at, sizeof(none), 1);
}

static bool unpack_mac(GVariant *v, EcControlMessage *m, void *at)
{
	gsize n;
	const void *bytes = g_variant_get_fixed_array(v, &n, 1);

	if (n != sizeof(m->mac))
		return false;
	memcpy(at, bytes, n);
	return true;
}

static GVariant *pack_encaps(const EcControlMessage *m, const void *at, bool needed)
{
	GVariantBuilder b;

	if (m->n_encaps == 0 && !needed)
		return NULL;
	g_variant_builder_init(&b, G_VARIANT_TYPE("a(ssq)"));
	for (size_t i = 0; i < MIN(m->n_encaps, EC_CONTROL_ENCAPS_MAX); i++) {
		const EcControlEncap *e = &m->encaps[i];
		g_autofree char *name = clean_text(e->name, sizeof(e->name));
		g_autofree char *plane = clean_text(e->plane, sizeof(e->plane));

		g_variant_builder_add(&b, "(ssq)", name, plane, e->data_port);
	}
	return g_variant_builder_end(&b);
}

static bool unpack_encaps(GVariant *v, EcControlMessage *m, void *at)
{
	gsize n = g_variant_n_children(v);

	if (n > EC_CONTROL_ENCAPS_MAX)
		return false;
	for (gsize i = 0; i < n; i++) {
		g_autoptr(GVariant) item = g_variant_get_child_value(v, i);
		g_autoptr(GVariant) name = g_variant_get_child_value(item, 0);
		g_autoptr(GVariant) plane = g_variant_get_child_value(item, 1);
		EcControlEncap *e = &m->encaps[i];

		if (!unpack_text(name, e->name, sizeof(e->name)) ||
				!unpack_text(plane, e->plane, sizeof(e->plane)))
			return false;
		g_variant_get_child(item, 2, "q", &e->data_port);
	}
	m->n_encaps = n;
	return true;
}

static GVariant *pack_ids(const EcControlMessage *m, const void *at, bool needed)
{
	size_t n = MIN(m->n_ids, EC_CONTROL_IDS_MAX);

	if (n == 0 && !needed)
		return NULL;
	return g_variant_new_fixed_array(G_VARIANT_TYPE_UINT32, m->ids, n, sizeof(m->ids[0]));
}

static bool unpack_ids(GVariant *v, EcControlMessage *m, void *at)
{
	gsize n;
	const uint32_t *ids = g_variant_get_fixed_array(v, &n, sizeof(m->ids[0]));

	if (n > EC_CONTROL_IDS_MAX)
		return false;
	if (n > 0)
		memcpy(m->ids, ids, n * sizeof(m->ids[0]));
	m->n_ids = n;
	return true;
}

static const Kind u16 = { "q", "a number of 16 bits", pack_u16, unpack_u16 };
static const Kind u32 = { "u", "a number of 32 bits", pack_u32, unpack_u32 };
static const Kind u64 = { "t", "a number of 64 bits", pack_u64, unpack_u64 };
static const Kind boolean = { "b", "true or false", pack_bool, unpack_bool };
static const Kind name = { "s", "clean text of 1 to 63 bytes", pack_name, unpack_name };
static const Kind sentence = { "s", "clean text of 1 to 511 bytes", pack_sentence,
	unpack_sentence };
static const Kind address = { "s", "an IP address", pack_address, unpack_address };
static const Kind mac = { "ay", "6 bytes", pack_mac, unpack_mac };
static const Kind encaps = { "a(ssq)", "a list of at most 16 encapsulations", pack_encaps,
	unpack_encaps };
static const Kind ids = { "au", "a list of at most 16 numbers", pack_ids, unpack_ids };

#define AT(member) offsetof(EcControlMessage, member)

/* "type" (s) is in all of them. */
static const Member members[] = {
	{ "protocol", &u32, AT(protocol), BIT(WELCOME) | BIT(CHOOSE), 0 },
	{ "minor", &u32, AT(minor), 0, BIT(WELCOME) | BIT(CHOOSE) },
	{ "name", &name, AT(name), BIT(WELCOME) | BIT(CHOOSE), 0 },
	{ "peer", &name, AT(peer), 0, BIT(WELCOME) },
	{ "nonce", &u64, AT(nonce), BIT(WELCOME) | BIT(CHOOSE), 0 },
	{ "instance", &u64, AT(instance), BIT(WELCOME) | BIT(CHOOSE), 0 },
	{ "mode", &name, AT(mode), BIT(CHOOSE), BIT(WELCOME) },
	{ "bridged", &boolean, AT(bridged), 0, BIT(WELCOME) | BIT(CHOOSE) },
	{ "seen", &address, AT(seen), 0, BIT(WELCOME) },
	{ "local", &address, AT(local), 0, BIT(CHOOSE) },
	{ "any-order", &boolean, AT(any_order), 0, BIT(WELCOME) },
	{ "encapsulations", &encaps, AT(encaps), BIT(WELCOME), 0 },
	{ "ids", &ids, AT(ids), BIT(WELCOME), 0 },
	{ "encapsulation", &name, AT(encapsulation), BIT(CHOOSE), BIT(WELCOME) },
	{ "plane", &name, AT(plane), 0, BIT(CHOOSE) },
	{ "id", &u32, AT(id), BIT(CHOOSE), BIT(WELCOME) },
	{ "data-port", &u16, AT(data_port), 0, BIT(CHOOSE) },
	{ "remote-data-port", &u16, AT(remote_data_port), 0, BIT(CHOOSE) },
	{ "path-mtu", &u32, AT(path_mtu), 0, BIT(WELCOME) | BIT(CHOOSE) },
	{ "mtu", &u32, AT(mtu), BIT(CHOOSE), BIT(WELCOME) },
	{ "bridge-mtu", &u32, AT(bridge_mtu), 0, BIT(WELCOME) },
	{ "split", &boolean, AT(split), 0, BIT(CHOOSE) },
	{ "probe-group", &u32, AT(probe_group), 0, BIT(WELCOME) | BIT(CHOOSE) },
	{ "full-frames", &name, AT(full_frames), 0, BIT(WELCOME) },
	{ "size", &u32, AT(size), BIT(CHOOSE), 0 },
	{ "mac", &mac, AT(mac), 0, BIT(WELCOME) | BIT(CHOOSE) | BIT(READY) },
	{ "round", &u32, AT(round), BIT(CHOOSE) | BIT(READY), 0 },
	{ "seq", &u64, AT(seq), BIT(PING) | BIT(PONG), 0 },
	{ "rx-packets", &u64, AT(rx_packets), 0, BIT(PING) | BIT(PONG) },
	{ "tx-packets", &u64, AT(tx_packets), 0, BIT(PING) | BIT(PONG) },
	{ "error", &name, AT(error), BIT(BYE) | BIT(REFUSE), 0 },
	{ "text", &sentence, AT(text), BIT(REFUSE), BIT(BYE) },
};

const char *ec_control_type_to_string(EcControlType type)
{
	return (unsigned)type < _EC_CONTROL_TYPE_MAX ? types[type] : "unknown";
}

static GVariant *to_variant(const EcControlMessage *m)
{
	unsigned bit = 1u << m->type;
	GVariantBuilder b;

	g_variant_builder_init(&b, G_VARIANT_TYPE_VARDICT);
	g_variant_builder_add(&b, "{sv}", "type",
			g_variant_new_string(ec_control_type_to_string(m->type)));
	for (size_t i = 0; i < EC_ELEMENTS(members); i++) {
		const Member *e = &members[i];
		const void *at = (const uint8_t *)m + e->offset;
		GVariant *v = NULL;

		if ((e->needed | e->may) & bit)
			v = e->kind->pack(m, at, (e->needed & bit) != 0);
		if (v)
			g_variant_builder_add(&b, "{sv}", e->key, v);
	}
	return g_variant_ref_sink(g_variant_builder_end(&b));
}

/* The wire is little-endian. */
static GVariant *take_swapped(GVariant *v)
{
#if G_BYTE_ORDER == G_BIG_ENDIAN
	GVariant *swapped = g_variant_byteswap(v);

	g_variant_unref(v);
	return swapped;
#else
	return v;
#endif
}

GByteArray *ec_control_message_encode(const EcControlMessage *m)
{
	g_autoptr(GVariant) v = take_swapped(to_variant(m));
	gsize n = g_variant_get_size(v);
	uint32_t length = g_htonl((uint32_t)n);
	GByteArray *out = g_byte_array_sized_new((guint)(sizeof(length) + n));

	/* The table's largest message is far below EC_CONTROL_SIZE_MAX. */
	g_byte_array_append(out, (const uint8_t *)&length, sizeof(length));
	g_byte_array_append(out, g_variant_get_data(v), (guint)n);
	return out;
}

int ec_control_message_length(const uint8_t header[static 4], sd_bus_error *ret_error)
{
	uint32_t n = (uint32_t)header[0] << 24 | (uint32_t)header[1] << 16 |
		     (uint32_t)header[2] << 8 | header[3];

	if (n >= 1 && n <= EC_CONTROL_SIZE_MAX)
		return (int)n;
	(void)ec_error(ret_error, EC_ERROR_PROTOCOL,
			"the peer announces a message of %" G_GUINT32_FORMAT
			" bytes; 1 to %u are allowed",
			n, EC_CONTROL_SIZE_MAX);
	return -EMSGSIZE;
}

static int bad(sd_bus_error *ret_error, const char *type, const char *key, const char *what)
{
	(void)ec_error(ret_error, EC_ERROR_PROTOCOL, "the peer's %s message is malformed: '%s' %s",
			type, key, what);
	return -EBADMSG;
}

static int get_type(GVariant *dict, EcControlType *ret, sd_bus_error *ret_error)
{
	g_autoptr(GVariant) v = g_variant_lookup_value(dict, "type", NULL);

	if (!v)
		return bad(ret_error, "control", "type", "is missing");
	if (!g_variant_is_of_type(v, G_VARIANT_TYPE_STRING))
		return bad(ret_error, "control", "type", "is not text");
	for (size_t i = 0; i < EC_ELEMENTS(types); i++) {
		if (g_str_equal(types[i], g_variant_get_string(v, NULL))) {
			*ret = (EcControlType)i;
			return 0;
		}
	}
	return -EOPNOTSUPP;
}

/* True when the message is of a protocol that nobody here knows: then only that counts. */
static bool get_newer(GVariant *dict, EcControlMessage *m)
{
	uint32_t protocol;

	if (m->type != EC_CONTROL_WELCOME && m->type != EC_CONTROL_CHOOSE)
		return false;
	if (!g_variant_lookup(dict, "protocol", "u", &protocol) || protocol <= EC_CONTROL_PROTOCOL)
		return false;
	m->protocol = protocol;
	return true;
}

static const Member *find_member(const char *key, unsigned bit)
{
	for (size_t i = 0; i < EC_ELEMENTS(members); i++) {
		if (((members[i].needed | members[i].may) & bit) &&
				g_str_equal(members[i].key, key))
			return &members[i];
	}
	return NULL;
}

static int get_members(GVariant *dict, EcControlMessage *m, sd_bus_error *ret_error)
{
	bool seen[EC_ELEMENTS(members)] = { false };
	const char *type = types[m->type];
	unsigned bit = 1u << m->type;
	gsize n = g_variant_n_children(dict);

	for (gsize i = 0; i < n; i++) {
		g_autoptr(GVariant) v = NULL;
		const char *key;

		g_variant_get_child(dict, i, "{&sv}", &key, &v);
		const Member *e = find_member(key, bit);
		if (!e)
			continue;
		if (seen[e - members])
			return bad(ret_error, type, e->key, "is there twice");
		seen[e - members] = true;
		if (!g_str_equal(g_variant_get_type_string(v), e->kind->signature) ||
				!e->kind->unpack(v, m, (uint8_t *)m + e->offset)) {
			g_autofree char *what = g_strdup_printf("is not %s", e->kind->allowed);

			return bad(ret_error, type, e->key, what);
		}
	}
	for (size_t i = 0; i < EC_ELEMENTS(members); i++) {
		if ((members[i].needed & bit) && !seen[i])
			return bad(ret_error, type, members[i].key, "is missing");
	}
	return 0;
}

int ec_control_message_decode(
		const void *data, size_t size, EcControlMessage *ret, sd_bus_error *ret_error)
{
	int r = size <= EC_CONTROL_SIZE_MAX ? 0 : -EBADMSG;

	memset(ret, 0, sizeof(*ret));
	if (r < 0) {
		(void)ec_error(ret_error, EC_ERROR_PROTOCOL,
				"the peer's message has %zu bytes; at most %u are allowed", size,
				EC_CONTROL_SIZE_MAX);
		return r;
	}
	/* A copy, because GVariant wants it aligned. */
	g_autoptr(GBytes) bytes = g_bytes_new(data, size);
	g_autoptr(GVariant) dict = g_variant_ref_sink(
			g_variant_new_from_bytes(G_VARIANT_TYPE_VARDICT, bytes, FALSE));
	if (!g_variant_is_normal_form(dict)) {
		(void)ec_error(ret_error, EC_ERROR_PROTOCOL,
				"the peer's message is not a dictionary in normal form");
		return -EBADMSG;
	}
	dict = take_swapped(g_steal_pointer(&dict));
	r = get_type(dict, &ret->type, ret_error);
	if (r == 0 && !get_newer(dict, ret))
		r = get_members(dict, ret, ret_error);
	if (r < 0)
		memset(ret, 0, sizeof(*ret));
	return r;
}

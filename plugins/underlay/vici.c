/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/vici.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * DOC: Theory of operation
 *
 * VICI is strongSwan's configuration protocol. A packet is a length (32 bits, big endian), a type,
 * for some types a name, and a message: a tree of sections with keys and lists. On connecting we
 * subscribe to what changes the connections and ask for those that are there, which come one by one
 * as events of the same shape. From each, "CONNECTION/CHILD" is noted under the child's reqid, the
 * number that the kernel's policies carry.
 *
 * Names are only ever replaced, not taken away, while the daemon runs: a policy outlives its
 * connection (a trap), and is to keep its name then. Nothing here ever waits: what we send is a few
 * hundred bytes into an empty buffer. A daemon that hangs up, refuses or sends nonsense costs us
 * the names, and a connection attempt every half minute, or when policies change, while there are
 * any.
 */

#define PACKET_MAX ((size_t)512 * 1024) /* of libvici and charon */
#define CHUNK 16384
#define RETRY_USEC (30 * (uint64_t)G_USEC_PER_SEC)
#define AGAIN_USEC (2 * (int64_t)G_USEC_PER_SEC)
#define NAMES_MAX 65536

enum {
	CMD_REQUEST = 0,
	EVENT_REGISTER = 3,
	EVENT = 7,
};

enum {
	SECTION_START = 1,
	SECTION_END,
	KEY_VALUE,
	LIST_START,
	LIST_ITEM,
	LIST_END,
};

static const char *const paths[] = { "/run/charon.vici", "/var/run/charon.vici" };
static const char *const events[] = { "ike-updown", "child-updown", "ike-rekey", "child-rekey",
	"ike-update", "list-sa" };

struct EcVici {
	sd_event *event;
	void (*changed)(void *userdata);
	void *userdata;
	bool want;
	int64_t tried; /* when it was dialled */
	int fd;
	sd_event_source *io, *timer;
	GByteArray *input;
	GHashTable *names; /* reqid -> "CONNECTION/CHILD" */
	bool renamed;      /* within this turn of the loop */
};

/* Messages */

typedef struct Reader {
	const uint8_t *data;
	size_t size, at;
} Reader;

/* A text behind a length of `width` bytes, or NULL. */
static char *take_text(Reader *r, unsigned width)
{
	size_t n = 0;

	if (r->size - r->at < width)
		return NULL;
	for (unsigned i = 0; i < width; i++)
		n = n << 8 | r->data[r->at++];
	if (r->size - r->at < n)
		return NULL;
	char *text = g_strndup((const char *)r->data + r->at, n);
	r->at += n;
	return text;
}

static int take_list(Reader *r)
{
	while (r->at < r->size) {
		uint8_t type = r->data[r->at++];

		if (type == LIST_END)
			return 0;
		g_autofree char *item = type == LIST_ITEM ? take_text(r, 2) : NULL;
		if (!item)
			return -EBADMSG;
	}
	return -EBADMSG;
}

/* One element that has a name. */
static int take_named(Reader *r, uint8_t type, EcViciPlace *at, const EcViciVisitor *visitor)
{
	g_autofree char *name = take_text(r, 1);

	if (!name)
		return -EBADMSG;
	if (type == LIST_START)
		return take_list(r);
	if (type == SECTION_START) {
		if (at->depth == EC_VICI_DEPTH)
			return -EBADMSG;
		at->names[at->depth++] = g_steal_pointer(&name);
		return 0;
	}
	g_autofree char *value = take_text(r, 2);
	if (!value)
		return -EBADMSG;
	visitor->value(at, name, value, visitor->userdata);
	return 0;
}

int ec_vici_parse(const uint8_t *data, size_t size, const EcViciVisitor *visitor)
{
	Reader r = { .data = data, .size = size };
	EcViciPlace at = { 0 };
	int error = 0;

	while (error == 0 && r.at < r.size) {
		uint8_t type = r.data[r.at++];

		if (type == SECTION_START || type == KEY_VALUE || type == LIST_START) {
			error = take_named(&r, type, &at, visitor);
		} else if (type == SECTION_END && at.depth > 0) {
			visitor->leave(&at, visitor->userdata);
			g_free(at.names[--at.depth]);
		} else {
			error = -EBADMSG;
		}
	}
	if (at.depth > 0)
		error = -EBADMSG;
	while (at.depth > 0)
		g_free(at.names[--at.depth]);
	return error;
}

/* Names */

/* What is known of the child section that is being read. */
typedef struct Child {
	EcVici *vici;
	char *name;
	uint32_t reqid;
} Child;

/* CONNECTION { child-sas { KEY { name, reqid } } }, and in child-rekey a section old and new more.
 * The key is the name, or the name with a number. */
static bool is_child(const EcViciPlace *at)
{
	return (at->depth == 3 || at->depth == 4) && g_str_equal(at->names[1], "child-sas");
}

static void on_value(const EcViciPlace *at, const char *key, const char *value, void *userdata)
{
	Child *child = userdata;

	if (!is_child(at))
		return;
	if (g_str_equal(key, "name")) {
		g_free(child->name);
		child->name = g_strdup(value);
	} else if (g_str_equal(key, "reqid")) {
		guint64 reqid = 0;

		if (g_ascii_string_to_unsigned(value, 10, 1, UINT32_MAX, &reqid, NULL))
			child->reqid = (uint32_t)reqid;
	}
}

static void note(EcVici *v, uint32_t reqid, char *name)
{
	if (g_strcmp0(g_hash_table_lookup(v->names, GUINT_TO_POINTER(reqid)), name) == 0) {
		g_free(name);
		return;
	}
	if (g_hash_table_size(v->names) >= NAMES_MAX)
		g_hash_table_remove_all(v->names);
	g_hash_table_insert(v->names, GUINT_TO_POINTER(reqid), name);
	v->renamed = true;
}

static void on_leave(const EcViciPlace *at, void *userdata)
{
	Child *child = userdata;

	if (!is_child(at))
		return;
	g_autofree char *name = g_strdup_printf(
			"%s/%s", at->names[0], child->name ? child->name : at->names[2]);
	if (child->reqid && ec_text_is_clean(name))
		note(child->vici, child->reqid, g_steal_pointer(&name));
	child->reqid = 0;
	g_clear_pointer(&child->name, g_free);
}

const char *ec_vici_name(const EcVici *v, uint32_t reqid)
{
	return reqid ? g_hash_table_lookup(v->names, GUINT_TO_POINTER(reqid)) : NULL;
}

/* The connection */

static int set_timer(EcVici *v);

static void hang_up(EcVici *v)
{
	v->io = sd_event_source_disable_unref(v->io);
	if (v->fd >= 0)
		(void)close(v->fd);
	v->fd = -1;
	g_byte_array_set_size(v->input, 0);
}

/* Ends it for now. */
static void give_up(EcVici *v, const char *why)
{
	bool had = g_hash_table_size(v->names) > 0;

	g_info("names of IPsec connections are not known: charon's VICI socket %s", why);
	hang_up(v);
	g_hash_table_remove_all(v->names);
	v->renamed = false;
	(void)set_timer(v);
	if (had)
		v->changed(v->userdata);
}

static int on_packet(EcVici *v, const uint8_t *data, size_t size)
{
	Child child = { .vici = v };
	const EcViciVisitor visitor = { on_value, on_leave, &child };

	if (size == 0)
		return -EBADMSG;
	if (data[0] != EVENT) /* an older charon may not know an event: no matter */
		return 0;
	if (size < 2 || size - 2 < data[1])
		return -EBADMSG;
	int r = ec_vici_parse(data + 2 + data[1], size - 2 - data[1], &visitor);
	g_free(child.name);
	return r;
}

/* Handles the whole packets that are there. */
static int take_packets(EcVici *v)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && v->input->len - at >= 4) {
		const uint8_t *p = v->input->data + at;
		size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];

		if (n > PACKET_MAX)
			return -EBADMSG;
		if (v->input->len - at - 4 < n)
			break;
		r = on_packet(v, p + 4, n);
		at += 4 + n;
	}
	if (at > 0)
		g_byte_array_remove_range(v->input, 0, (guint)at);
	return r;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcVici *v = userdata;
	uint8_t chunk[CHUNK];
	ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		give_up(v, n == 0 ? "was closed" : g_strerror(errno));
		return 0;
	}
	g_byte_array_append(v->input, chunk, (guint)n);
	if (take_packets(v) < 0) {
		give_up(v, "sent a malformed message");
	} else if (v->renamed) {
		v->renamed = false;
		v->changed(v->userdata);
	}
	return 0;
}

static void put_packet(GByteArray *out, uint8_t type, const char *name)
{
	uint8_t n = (uint8_t)strlen(name);
	const uint8_t head[] = { 0, 0, 0, (uint8_t)(n + 2), type, n };

	g_byte_array_append(out, head, sizeof(head));
	g_byte_array_append(out, (const uint8_t *)name, n);
}

int ec_vici_attach(EcVici *v, int fd)
{
	g_autoptr(GByteArray) out = g_byte_array_new();
	int r;

	hang_up(v);
	v->fd = fd;
	for (size_t i = 0; i < EC_ELEMENTS(events); i++)
		put_packet(out, EVENT_REGISTER, events[i]);
	put_packet(out, CMD_REQUEST, "list-sas");
	ssize_t n = send(fd, out->data, out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		r = -errno;
	else if ((size_t)n < out->len)
		r = -EAGAIN;
	else
		r = sd_event_add_io(v->event, &v->io, fd, EPOLLIN, on_io, v);
	if (r < 0)
		hang_up(v);
	return r;
}

bool ec_vici_attached(const EcVici *v)
{
	return v->fd >= 0;
}

static int dial(EcVici *v, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return ec_vici_attach(v, fd);
}

static void try(EcVici *v)
{
	int r = -ENOENT;

	v->tried = g_get_monotonic_time();
	for (size_t i = 0; r == -ENOENT && i < EC_ELEMENTS(paths); i++)
		r = dial(v, paths[i]);
	if (r < 0) {
		g_debug("names of IPsec connections are not known: charon's VICI socket: %s",
				g_strerror(-r));
		(void)set_timer(v);
	}
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcVici *v = userdata;

	v->timer = sd_event_source_disable_unref(v->timer);
	if (v->want && v->fd < 0)
		try(v);
	return 0;
}

static int set_timer(EcVici *v)
{
	if (!v->want || v->timer)
		return 0;
	return sd_event_add_time_relative(v->event, &v->timer, CLOCK_MONOTONIC, RETRY_USEC,
			RETRY_USEC / 10, on_timer, v);
}

void ec_vici_want(EcVici *v, bool want)
{
	if (want) {
		v->want = true;
		/* Whoever asks saw the policies change: charon may be back. */
		if (v->fd < 0 && (!v->tried || g_get_monotonic_time() - v->tried >= AGAIN_USEC))
			try(v);
		return;
	}
	v->want = false;
	v->tried = 0;
	v->timer = sd_event_source_disable_unref(v->timer);
	hang_up(v);
	g_hash_table_remove_all(v->names);
}

EcVici *ec_vici_new(sd_event *event, void (*changed)(void *userdata), void *userdata)
{
	EcVici *v = g_new0(EcVici, 1);

	v->event = event;
	v->changed = changed;
	v->userdata = userdata;
	v->fd = -1;
	v->input = g_byte_array_new();
	v->names = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	return v;
}

EcVici *ec_vici_free(EcVici *v)
{
	if (!v)
		return NULL;
	v->want = false;
	v->timer = sd_event_source_disable_unref(v->timer);
	hang_up(v);
	g_byte_array_unref(v->input);
	g_hash_table_unref(v->names);
	g_free(v);
	return NULL;
}

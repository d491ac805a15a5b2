/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/networkmanager.h"

#include <errno.h>
#include <string.h>

#include "dbus-fields.h"
#include "underlay.h"

/*
 * DOC: Theory of operation
 *
 * NetworkManager is asked over D-Bus which interfaces are VPN connections, and what those are
 * called. A VPN connection's Devices is the device that it rides on, never the VPN. Its own
 * interface is the device that has the connection's Ip4Config or Ip6Config (underlay.md §3). A
 * WireGuard connection is an ordinary device.
 *
 * Its objects are read out once when it appears and then followed by signals of those two sorts of
 * objects alone: a NetworkManager that looks for Wi-Fi networks or counts packets does not wake us.
 * It is never started by our questions, and when it goes its names are forgotten.
 */

#define NM "org.freedesktop.NetworkManager"
#define NM_ROOT "/org/freedesktop"
#define NM_PATH "/org/freedesktop/NetworkManager"
#define NM_ACTIVES NM_PATH "/ActiveConnection"
#define NM_DEVICES NM_PATH "/Devices"
#define NM_ACTIVE NM ".Connection.Active"
#define NM_DEVICE NM ".Device"
#define OBJECT_MANAGER "org.freedesktop.DBus.ObjectManager"
#define PROPERTIES "org.freedesktop.DBus.Properties"
#define PROPERTIES_CHANGED                                                                         \
	"type='signal',sender='" NM "',interface='" PROPERTIES "',member='PropertiesChanged',"
#define INTERFACES(member)                                                                         \
	"type='signal',sender='" NM "',path='" NM_ROOT "',interface='" OBJECT_MANAGER              \
	"',member='" member "',"

#define STATE_ACTIVATED 2 /* NM_ACTIVE_CONNECTION_STATE_ACTIVATED */
#define NAME_MAX_CHARACTERS 32

typedef struct NetworkManager {
	EcSource s;
	GHashTable *actives, *devices; /* by object path */
	sd_bus_slot *matches[8];
	size_t n_matches;
	sd_bus_slot *reply;
	char *told; /* what was last reported, as text */
} NetworkManager;

/* Objects */

void ec_nm_device_free(gpointer device)
{
	EcNmDevice *d = device;

	g_free(d->interface);
	g_free(d->ip_interface);
	g_free(d->ip4);
	g_free(d->ip6);
	g_free(d);
}

void ec_nm_active_free(gpointer active)
{
	EcNmActive *a = active;

	g_free(a->id);
	g_free(a->uuid);
	g_free(a->type);
	g_free(a->ip4);
	g_free(a->ip6);
	g_strfreev(a->devices);
	g_free(a);
}

static bool same_config(const char *a, const char *b)
{
	return a && b && !g_str_equal(a, "/") && g_str_equal(a, b);
}

static bool is_on(const EcNmActive *a, const char *path, const EcNmDevice *d)
{
	bool listed = a->devices && g_strv_contains((const char *const *)a->devices, path);

	if (a->state != STATE_ACTIVATED)
		return false;
	if (!a->vpn)
		return listed && g_strcmp0(a->type, "wireguard") == 0;
	/* A VPN without an interface of its own has its addresses on the one it rides on. */
	return !listed && (same_config(a->ip4, d->ip4) || same_config(a->ip6, d->ip6));
}

static bool is_called(const EcNmDevice *d, const char *interface)
{
	const char *name = d->ip_interface && d->ip_interface[0] ? d->ip_interface : d->interface;

	return g_strcmp0(name, interface) == 0;
}

const EcNmActive *ec_nm_connection(GHashTable *actives, GHashTable *devices, const char *interface)
{
	const EcNmActive *found = NULL;
	GHashTableIter i, j;
	const char *path;
	EcNmActive *a;
	EcNmDevice *d;

	g_hash_table_iter_init(&i, devices);
	while (g_hash_table_iter_next(&i, (gpointer *)&path, (gpointer *)&d)) {
		if (!is_called(d, interface))
			continue;
		g_hash_table_iter_init(&j, actives);
		while (g_hash_table_iter_next(&j, NULL, (gpointer *)&a)) {
			if (is_on(a, path, d) && (!found || a->vpn))
				found = a;
		}
	}
	return found;
}

char *ec_nm_connection_name(const EcNmActive *active)
{
	if (!active->id || !active->id[0] || !ec_text_is_clean(active->id))
		return NULL;
	char *name = g_utf8_substring(
			active->id, 0, MIN(g_utf8_strlen(active->id, -1), NAME_MAX_CHARACTERS));
	return g_strdelimit(name, "\"", '\'');
}

/* Messages */

static const EcDbusField device_properties[] = {
	{ "Interface", 's', offsetof(EcNmDevice, interface) },
	{ "IpInterface", 's', offsetof(EcNmDevice, ip_interface) },
	{ "Ip4Config", 'o', offsetof(EcNmDevice, ip4) },
	{ "Ip6Config", 'o', offsetof(EcNmDevice, ip6) },
	{ "DeviceType", 'u', offsetof(EcNmDevice, type) },
	{ NULL },
};

static const EcDbusField active_properties[] = {
	{ "Id", 's', offsetof(EcNmActive, id) },
	{ "Uuid", 's', offsetof(EcNmActive, uuid) },
	{ "Type", 's', offsetof(EcNmActive, type) },
	{ "Ip4Config", 'o', offsetof(EcNmActive, ip4) },
	{ "Ip6Config", 'o', offsetof(EcNmActive, ip6) },
	{ "Devices", 'a', offsetof(EcNmActive, devices) },
	{ "State", 'u', offsetof(EcNmActive, state) },
	{ "Vpn", 'b', offsetof(EcNmActive, vpn) },
	{ NULL },
};

static EcNmActive *active_at(NetworkManager *n, const char *path, bool make)
{
	EcNmActive *a = g_hash_table_lookup(n->actives, path);

	if (!a && make) {
		a = g_new0(EcNmActive, 1);
		g_hash_table_insert(n->actives, g_strdup(path), a);
	}
	return a;
}

static EcNmDevice *device_at(NetworkManager *n, const char *path, bool make)
{
	EcNmDevice *d = g_hash_table_lookup(n->devices, path);

	if (!d && make) {
		d = g_new0(EcNmDevice, 1);
		g_hash_table_insert(n->devices, g_strdup(path), d);
	}
	return d;
}

/* a{sv} of one interface of one object. make: the object is new, or may be. */
static int read_interface(
		NetworkManager *n, sd_bus_message *m, const char *path, const char *name, bool make)
{
	void *object = NULL;
	const EcDbusField *table = NULL;

	if (g_str_equal(name, NM_ACTIVE)) {
		table = active_properties;
		object = active_at(n, path, make);
	} else if (g_str_equal(name, NM_DEVICE)) {
		table = device_properties;
		object = device_at(n, path, make);
	}
	return object ? ec_dbus_read_fields(m, table, object) : sd_bus_message_skip(m, "a{sv}");
}

/* oa{sa{sv}}: an object with its interfaces. */
static int read_object(NetworkManager *n, sd_bus_message *m)
{
	const char *path, *name;
	int r = sd_bus_message_read_basic(m, 'o', &path);

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
		r = sd_bus_message_read_basic(m, 's', &name);
		if (r >= 0)
			r = read_interface(n, m, path, name, true);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* Following */

static gint by_text(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void describe(NetworkManager *n, GString *text)
{
	g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
	GHashTableIter i;
	EcNmDevice *d;

	g_hash_table_iter_init(&i, n->devices);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&d)) {
		const char *name = d->ip_interface && d->ip_interface[0] ? d->ip_interface
									 : d->interface;
		const EcNmActive *a = name ? ec_nm_connection(n->actives, n->devices, name) : NULL;

		if (a)
			g_ptr_array_add(lines, g_strdup_printf("%s %d %s %s\n", name, a->vpn,
							       a->uuid, a->id));
	}
	g_ptr_array_sort(lines, by_text);
	for (guint l = 0; l < lines->len; l++)
		g_string_append(text, g_ptr_array_index(lines, l));
}

/* Tells of a change of what is known, and of nothing else. */
static void tell(NetworkManager *n)
{
	g_autoptr(GString) text = g_string_new(NULL);

	describe(n, text);
	if (g_strcmp0(text->str, n->told) == 0)
		return;
	g_free(n->told);
	n->told = g_strdup(text->str);
	ec_underlay_report(&n->s);
}

static void forget(NetworkManager *n)
{
	n->reply = sd_bus_slot_unref(n->reply);
	g_hash_table_remove_all(n->actives);
	g_hash_table_remove_all(n->devices);
}

static int on_objects(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	NetworkManager *n = userdata;
	int r = sd_bus_message_is_method_error(m, NULL)
				? -ENOENT /* there is no NetworkManager, or it does not talk to us
					   */
				: sd_bus_message_enter_container(m, 'a', "{oa{sa{sv}}}");

	g_hash_table_remove_all(n->actives);
	g_hash_table_remove_all(n->devices);
	while (r >= 0 && sd_bus_message_enter_container(m, 'e', "oa{sa{sv}}") > 0) {
		r = read_object(n, m);
		r = r < 0 ? r : sd_bus_message_exit_container(m);
	}
	n->reply = sd_bus_slot_unref(n->reply);
	tell(n);
	return 0;
}

static int ask(NetworkManager *n)
{
	g_autoptr(sd_bus_message) m = NULL;
	int r = sd_bus_message_new_method_call(
			n->s.bus, &m, NM, NM_ROOT, OBJECT_MANAGER, "GetManagedObjects");

	if (r >= 0)
		r = sd_bus_message_set_auto_start(m, false);
	if (r >= 0)
		r = sd_bus_call_async(n->s.bus, &n->reply, m, on_objects, n, 0);
	return r;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	NetworkManager *n = userdata;
	const char *name, *before, *now;

	if (sd_bus_message_read(m, "sss", &name, &before, &now) < 0)
		return 0;
	forget(n);
	if (*now)
		(void)ask(n);
	else
		tell(n);
	return 0;
}

/* What comes before the objects were read out is in them. */

static int on_added(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	NetworkManager *n = userdata;

	if (!n->reply && read_object(n, m) >= 0)
		tell(n);
	return 0;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	NetworkManager *n = userdata;
	const char *path;

	if (n->reply || sd_bus_message_read_basic(m, 'o', &path) < 0)
		return 0;
	if (g_hash_table_remove(n->actives, path) || g_hash_table_remove(n->devices, path))
		tell(n);
	return 0;
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	NetworkManager *n = userdata;
	const char *name;

	if (!n->reply && sd_bus_message_read_basic(m, 's', &name) >= 0 &&
			read_interface(n, m, sd_bus_message_get_path(m), name, false) >= 0)
		tell(n);
	return 0;
}

static int match(NetworkManager *n, const char *rule, sd_bus_message_handler_t f)
{
	g_assert(n->n_matches < EC_ELEMENTS(n->matches));
	int r = sd_bus_add_match_async(n->s.bus, &n->matches[n->n_matches], rule, f, NULL, n);
	if (r >= 0)
		n->n_matches++;
	return r;
}

static int watch(EcSource *s, sd_bus_error *ret_error)
{
	static const struct {
		const char *rule;
		sd_bus_message_handler_t f;
	} rules[] = {
		{ "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
		  "interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='" NM "'",
				on_owner },
		{ INTERFACES("InterfacesAdded") "arg0path='" NM_ACTIVES "/'", on_added },
		{ INTERFACES("InterfacesAdded") "arg0path='" NM_DEVICES "/'", on_added },
		{ INTERFACES("InterfacesRemoved") "arg0path='" NM_ACTIVES "/'", on_removed },
		{ INTERFACES("InterfacesRemoved") "arg0path='" NM_DEVICES "/'", on_removed },
		{ PROPERTIES_CHANGED "arg0='" NM_ACTIVE "'", on_changed },
		{ PROPERTIES_CHANGED "arg0='" NM_DEVICE "'", on_changed },
	};
	NetworkManager *n = (NetworkManager *)s;
	int r = 0;

	n->told = g_strdup("");
	n->actives = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, ec_nm_active_free);
	n->devices = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, ec_nm_device_free);
	if (!s->bus)
		return 0;
	for (size_t i = 0; i < EC_ELEMENTS(rules) && r >= 0; i++)
		r = match(n, rules[i].rule, rules[i].f);
	if (r >= 0)
		r = ask(n);
	if (r < 0)
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"NetworkManager cannot be asked over D-Bus: %s", g_strerror(-r));
	return 0;
}

static void done(EcSource *s)
{
	NetworkManager *n = (NetworkManager *)s;

	for (size_t i = 0; i < n->n_matches; i++)
		n->matches[i] = sd_bus_slot_unref(n->matches[i]);
	n->n_matches = 0;
	n->reply = sd_bus_slot_unref(n->reply);
	g_clear_pointer(&n->actives, g_hash_table_unref);
	g_clear_pointer(&n->devices, g_hash_table_unref);
	g_clear_pointer(&n->told, g_free);
}

/* Looks */

static const EcNmActive *connection_of(EcSource *s, const EcLink *link)
{
	const NetworkManager *n = (NetworkManager *)s;

	return n->actives ? ec_nm_connection(n->actives, n->devices, link->name) : NULL;
}

static void add_details(const EcNmActive *a, EcLook *look)
{
	if (a->id && ec_text_is_clean(a->id))
		ec_look_add(look, "connection", "%s", a->id);
	if (a->uuid && ec_text_is_clean(a->uuid))
		ec_look_add(look, "connection-uuid", "%s", a->uuid);
}

/* A service may name any interface as its VPN's, a bridge for one. These are made for VPNs. */
static bool is_tunnel(const EcLink *link)
{
	static const char *const kinds[] = { "tun", "ppp", "xfrm", "vti", "vti6", "wireguard",
		NULL };

	return link->group != EC_LINK_GROUP && g_strv_contains(kinds, link->kind);
}

static bool recognise(EcSource *s, const EcLink *link, EcLook *look)
{
	const EcNmActive *a = connection_of(s, link);
	g_autofree char *name = a ? ec_nm_connection_name(a) : NULL;
	bool quote = name != NULL;

	if (!a || !a->vpn || !is_tunnel(link))
		return false;
	(void)g_snprintf(look->title, sizeof(look->title), "VPN %s%s%son %s", quote ? "\"" : "",
			quote ? name : "", quote ? "\" " : "", link->name);
	look->protect = true;
	look->up = (link->flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
	look->mtu = link->mtu;
	add_details(a, look);
	return true;
}

static void annotate(EcSource *s, const EcLink *link, EcLook *look)
{
	const EcNmActive *a = connection_of(s, link);
	g_autofree char *name = a ? ec_nm_connection_name(a) : NULL;
	size_t length = strlen(look->title);

	if (!a)
		return;
	add_details(a, look);
	/* A connection that NetworkManager made up for what it found is called like that. */
	if (!name || g_str_equal(name, link->name))
		return;
	g_autofree char *suffix = g_strdup_printf(" (\"%s\")", name);
	if (length + strlen(suffix) < sizeof(look->title))
		g_strlcpy(look->title + length, suffix, sizeof(look->title) - length);
}

const EcUnderlayKind ec_underlay_networkmanager = {
	.name = "networkmanager",
	.size = sizeof(NetworkManager),
	.watch = watch,
	.done = done,
	.recognise = recognise,
	.annotate = annotate,
};

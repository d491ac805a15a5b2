/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bus.h"

/* org.ethercord1.Underlay; dbus/org.ethercord1.Underlay.xml is the contract. */

static EcUnderlay *underlay_at(EcBus *b, const char *path)
{
	g_autofree char *name = NULL;

	if (sd_bus_path_decode(path, EC_BUS_UNDERLAY_PATH, &name) <= 0)
		return NULL;
	return g_hash_table_lookup(ec_underlays_table(b->manager->underlays), name);
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcUnderlay *u = userdata;
	const char *text = g_str_equal(property, "Name")        ? u->name
			   : g_str_equal(property, "Kind")      ? u->kind->name
			   : g_str_equal(property, "Interface") ? u->device
			   : u->look.up                         ? "up"
								: "down";

	return sd_bus_message_append(reply, "s", text);
}

static int get_protected(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "b", ((const EcUnderlay *)userdata)->look.protect);
}

static int get_mtu(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "u", ((const EcUnderlay *)userdata)->look.mtu);
}

static int get_details(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcUnderlay *u = userdata;
	const GPtrArray *details = u->look.details;
	int r = sd_bus_message_open_container(reply, 'a', "{sv}");

	if (r >= 0)
		r = sd_bus_message_append(reply, "{sv}", "title", "s", u->look.title);
	for (guint i = 0; r >= 0 && details && i + 1 < details->len; i += 2)
		r = sd_bus_message_append(reply, "{sv}", g_ptr_array_index(details, i), "s",
				g_ptr_array_index(details, i + 1));
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Name", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Kind", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Interface", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("State", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Protected", "b", get_protected, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Mtu", "u", get_mtu, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Details", "a{sv}", get_details, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_VTABLE_END,
};

static int find(sd_bus *bus, const char *path, const char *interface, void *userdata,
		void **ret_found, sd_bus_error *ret_error)
{
	*ret_found = underlay_at(userdata, path);
	return *ret_found != NULL;
}

static int enumerate(sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes,
		sd_bus_error *ret_error)
{
	EcBus *b = userdata;
	g_autoptr(GPtrArray) nodes = g_ptr_array_new();
	GHashTableIter i;
	EcUnderlay *u;

	g_hash_table_iter_init(&i, ec_underlays_table(b->manager->underlays));
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&u))
		g_ptr_array_add(nodes, ec_bus_underlay_path(u));
	g_ptr_array_add(nodes, NULL);
	*ret_nodes = (char **)g_ptr_array_free(g_steal_pointer(&nodes), false);
	return 0;
}

int ec_underlay_bus_export(EcBus *b)
{
	int r = sd_bus_add_fallback_vtable(
			b->bus, NULL, EC_BUS_UNDERLAY_PATH, EC_BUS_UNDERLAY, vtable, find, b);

	return r < 0 ? r
		     : sd_bus_add_node_enumerator(b->bus, NULL, EC_BUS_UNDERLAY_PATH, enumerate, b);
}

void ec_underlay_bus_added(EcUnderlay *u, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_underlay_path(u);

	(void)sd_bus_emit_object_added(b->bus, path);
}

void ec_underlay_bus_removed(EcUnderlay *u, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_underlay_path(u);

	(void)sd_bus_emit_object_removed(b->bus, path);
}

void ec_underlay_bus_changed(EcUnderlay *u, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_underlay_path(u);

	(void)sd_bus_emit_properties_changed(b->bus, path, EC_BUS_UNDERLAY, "Kind", "Interface",
			"State", "Protected", "Mtu", "Details", NULL);
}

void ec_underlay_bus_listed(void *userdata)
{
	EcBus *b = userdata;

	(void)sd_bus_emit_properties_changed(
			b->bus, EC_BUS_PATH, EC_BUS_MANAGER, "Underlays", NULL);
}

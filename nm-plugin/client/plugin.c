/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dlfcn.h>

#include "client.h"

/*
 * libnm-vpn-plugin-ethercord.so: what nmcli, nm-connection-editor and the settings of desktops load
 * for connections of ours. It links no toolkit: which of the two editors it then loads follows from
 * what the program already has.
 */

#define EC_TYPE_PLUGIN (ec_plugin_get_type())
G_DECLARE_FINAL_TYPE(EcPlugin, ec_plugin, EC, PLUGIN, GObject)

struct _EcPlugin {
	GObject parent;
};

enum {
	PROPERTY_NAME = 1,
	PROPERTY_DESCRIPTION,
	PROPERTY_SERVICE
};

static const struct {
	const char *property, *value;
} texts[] = {
	[PROPERTY_NAME] = { NM_VPN_EDITOR_PLUGIN_NAME, "Ethernet over a VPN (ethercord)" },
	[PROPERTY_DESCRIPTION] = { NM_VPN_EDITOR_PLUGIN_DESCRIPTION,
			"A virtual Ethernet cord over the VPN that you already have." },
	[PROPERTY_SERVICE] = { NM_VPN_EDITOR_PLUGIN_SERVICE, EC_PROFILE_SERVICE },
};

static void plugin_interface(NMVpnEditorPluginInterface *interface);

G_DEFINE_TYPE_WITH_CODE(EcPlugin, ec_plugin, G_TYPE_OBJECT,
		G_IMPLEMENT_INTERFACE(NM_TYPE_VPN_EDITOR_PLUGIN, plugin_interface))

/* The editors lie beside this file, wherever it was installed. */
static char *editor_path(void)
{
	/* No GTK 4 program has this. */
	bool three = dlsym(RTLD_DEFAULT, "gtk_container_add");
	const char *name = three ? "libnm-vpn-plugin-ethercord-editor.so"
				 : "libnm-gtk4-vpn-plugin-ethercord-editor.so";
	Dl_info self;

	if (!dladdr((void *)nm_vpn_editor_plugin_factory, &self))
		return g_strdup(name);
	g_autofree char *directory = g_path_get_dirname(self.dli_fname);
	return g_build_filename(directory, name, NULL);
}

static NMVpnEditor *get_editor(NMVpnEditorPlugin *plugin, NMConnection *connection, GError **error)
{
	g_autofree char *path = editor_path();
	/* Never unloaded: its types stay registered. */
	void *module = dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
	void *new = module ? dlsym(module, EC_EDITOR_NEW) : NULL;
	EcEditorNew editor_new;

	if (!new) {
		g_set_error(error, NM_VPN_PLUGIN_ERROR, NM_VPN_PLUGIN_ERROR_FAILED,
				"ethercord's editor cannot be loaded (%s); install its graphical part, or "
				"edit the connection with nmcli",
				dlerror());
		return NULL;
	}
	memcpy(&editor_new, &new, sizeof(new));
	return editor_new(connection, error);
}

static NMVpnEditorPluginCapability get_capabilities(NMVpnEditorPlugin *plugin)
{
	return NM_VPN_EDITOR_PLUGIN_CAPABILITY_IMPORT | NM_VPN_EDITOR_PLUGIN_CAPABILITY_EXPORT |
	       NM_VPN_EDITOR_PLUGIN_CAPABILITY_IPV6;
}

static NMConnection *import_from_file(NMVpnEditorPlugin *plugin, const char *path, GError **error)
{
	return ec_client_import(path, error);
}

static gboolean export_to_file(
		NMVpnEditorPlugin *plugin, const char *path, NMConnection *c, GError **error)
{
	return ec_client_export(path, c, error);
}

static char *get_suggested_filename(NMVpnEditorPlugin *plugin, NMConnection *c)
{
	return ec_client_filename(c);
}

static void plugin_interface(NMVpnEditorPluginInterface *interface)
{
	interface->get_editor = get_editor;
	interface->get_capabilities = get_capabilities;
	interface->import_from_file = import_from_file;
	interface->export_to_file = export_to_file;
	interface->get_suggested_filename = get_suggested_filename;
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec)
{
	g_value_set_static_string(value, texts[id].value);
}

static void ec_plugin_class_init(EcPluginClass *class)
{
	GObjectClass *object = G_OBJECT_CLASS(class);

	object->get_property = get_property;
	for (guint i = PROPERTY_NAME; i < EC_ELEMENTS(texts); i++)
		g_object_class_override_property(object, i, texts[i].property);
}

static void ec_plugin_init(EcPlugin *self)
{
}

G_MODULE_EXPORT NMVpnEditorPlugin *nm_vpn_editor_plugin_factory(GError **error)
{
	return g_object_new(EC_TYPE_PLUGIN, NULL);
}

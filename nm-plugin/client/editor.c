/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "form.h"
#include "toolkit.h"

/*
 * DOC: Theory of operation
 *
 * The page of a connection in nm-connection-editor (GTK 3) and in the settings of GNOME (GTK 4).
 * What it edits is a table of items, as they stand in vpn.data. Each field writes its item as the
 * user types; then the whole table is judged by the code that the service and the daemon judge it
 * by, and the fields are marked with its sentences. While there is one, update_connection() fails
 * with it, and the program that shows the page does not save.
 *
 * The page keeps what it does not show: the items of the advanced window, and what else the
 * connection's VPN setting has. Items that nobody knows, which the service would refuse, are told
 * about and left out.
 */

#define EC_TYPE_EDITOR (ec_editor_get_type())
G_DECLARE_FINAL_TYPE(EcEditor, ec_editor, EC, EDITOR, GObject)

struct _EcEditor {
	GObject parent;
	GHashTable *items;
	EcForm *form;
	GtkWidget *page;
	GtkWidget *key, *key_problem, *storage, *storage_problem, *persistent, *note;
	GtkWindow *window; /* the advanced one, while it is open */
	char *unknown;     /* items that are left out */
};

static void editor_interface(NMVpnEditorInterface *interface);

G_DEFINE_TYPE_WITH_CODE(EcEditor, ec_editor, G_TYPE_OBJECT,
		G_IMPLEMENT_INTERFACE(NM_TYPE_VPN_EDITOR, editor_interface))

/* What the page shows by itself; the advanced window has the rest. */
static const char *const simple[] = { "remote", "mode", "bridge", "ipv4", "ipv6", "address",
	"up-with", EC_VPN_KEY_FLAGS, NULL };

static const struct {
	const char *label;
	unsigned flags; /* NMSettingSecretFlags */
} storages[] = {
	{ "Stored for all users", NM_SETTING_SECRET_FLAG_NONE },
	{ "Stored for this user only", NM_SETTING_SECRET_FLAG_AGENT_OWNED },
	{ "Asked for each time", NM_SETTING_SECRET_FLAG_NOT_SAVED },
	{ "Not required", NM_SETTING_SECRET_FLAG_NOT_REQUIRED },
};

static const char *item(const EcEditor *e, const char *key)
{
	const char *text = g_hash_table_lookup(e->items, key);

	return text ? text : "";
}

static bool key_is_kept(const EcEditor *e)
{
	return storages[ec_tk_choice_get(e->storage)].flags <= NM_SETTING_SECRET_FLAG_AGENT_OWNED;
}

static char *key_sentence(const EcEditor *e)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(EcProfile) p = ec_profile_new();
	const char *text = ec_tk_entry_text(e->key);

	if (!*text || !key_is_kept(e) || ec_profile_set_secret(p, EC_VPN_KEY, text, &error) >= 0)
		return NULL;
	return g_strdup(error.message);
}

/* The sentence about something that stands on no field of this page. */
static void show_note(EcEditor *e, GHashTable *problems)
{
	g_autofree char *text =
			e->unknown ? g_strdup_printf("This version does not know %s; saving "
						     "leaves it out.",
						     e->unknown)
				   : NULL;
	GHashTableIter i;
	const char *key, *sentence;

	g_hash_table_iter_init(&i, problems);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, (gpointer *)&sentence)) {
		if (ec_form_has(e->form, key) || g_str_equal(key, EC_VPN_KEY_FLAGS))
			continue;
		g_free(text);
		text = g_strdup_printf("Advanced options: %s", sentence);
	}
	gtk_label_set_text(GTK_LABEL(e->note), text ? text : "");
	gtk_widget_set_visible(e->note, text != NULL);
}

/* A field that has no meaning now cannot be typed into, unless it has to be emptied. */
static void show_sense(EcEditor *e)
{
	bool bridged = *item(e, "bridge");
	bool alone = !g_str_has_prefix(item(e, "mode"), "join-");
	bool fixed = g_str_equal(item(e, "ipv4"), "static") ||
		     g_str_equal(item(e, "ipv6"), "static");

	ec_form_set_sensitive(e->form, "bridge", bridged || !alone);
	ec_form_set_sensitive(e->form, "ipv4", !bridged || *item(e, "ipv4"));
	ec_form_set_sensitive(e->form, "ipv6", !bridged || *item(e, "ipv6"));
	ec_form_set_sensitive(e->form, "address", fixed || *item(e, "address"));
	gtk_widget_set_sensitive(e->key, key_is_kept(e));
}

static void show(EcEditor *e)
{
	g_autoptr(GHashTable) problems = ec_client_check(e->items);
	g_autofree char *sentence = key_sentence(e);

	ec_form_show(e->form, problems);
	ec_form_show_problem(e->key, e->key_problem, EC_VPN_KEY, sentence);
	ec_form_show_problem(e->storage, e->storage_problem, EC_VPN_KEY_FLAGS,
			g_hash_table_lookup(problems, EC_VPN_KEY_FLAGS));
	show_note(e, problems);
	show_sense(e);
}

static void on_changed(gpointer data)
{
	EcEditor *e = data;

	show(e);
	g_signal_emit_by_name(e, "changed");
}

static void on_storage(EcEditor *e)
{
	unsigned flags = storages[ec_tk_choice_get(e->storage)].flags;

	if (flags)
		g_hash_table_insert(
				e->items, g_strdup(EC_VPN_KEY_FLAGS), g_strdup_printf("%u", flags));
	else
		g_hash_table_remove(e->items, EC_VPN_KEY_FLAGS);
	on_changed(e);
}

static void on_window_gone(EcEditor *e)
{
	e->window = NULL;
}

static void on_advanced(EcEditor *e)
{
	if (e->window) {
		gtk_window_present(e->window);
		return;
	}
	e->window = ec_advanced_open(e->page, e->items, simple, on_changed, e);
	g_signal_connect_object(
			e->window, "destroy", G_CALLBACK(on_window_gone), e, G_CONNECT_SWAPPED);
}

/* The page */

static void add_key(EcEditor *e, GtkWidget *box, NMSettingVpn *vpn)
{
	GtkWidget *grid = ec_form_section(box, "Key of the peer");
	const char *saved = vpn ? nm_setting_vpn_get_secret(vpn, EC_VPN_KEY) : NULL;
	guint64 flags = 0;
	const char *names[EC_ELEMENTS(storages) + 1] = { 0 };
	unsigned at = 0;

	for (size_t i = 0; i < EC_ELEMENTS(storages); i++)
		names[i] = storages[i].label;
	e->key = g_object_ref(ec_tk_password_new());
	e->storage = g_object_ref(ec_tk_choice_new(names));
	(void)g_ascii_string_to_unsigned(item(e, EC_VPN_KEY_FLAGS), 10, 0, 7, &flags, NULL);
	/* Of more than one, the one that tells what to do. */
	for (unsigned i = 0; i < EC_ELEMENTS(storages); i++) {
		if (flags & storages[i].flags)
			at = i;
	}
	ec_tk_choice_set(e->storage, at);
	if (saved)
		ec_tk_entry_set_text(e->key, saved);
	g_autofree char *tip =
			g_strdup_printf("Key shared with the peer: %s.\nWithout one, both ends "
					"have to trust the VPN between them.",
					ec_profile_find(EC_VPN_KEY)->allowed);
	gtk_widget_set_tooltip_text(e->key, tip);
	gtk_widget_set_tooltip_text(e->storage, "Who keeps the key.");
	e->key_problem = g_object_ref(ec_form_add_widget(e->form, grid, EC_VPN_KEY, "Key", e->key));
	e->storage_problem = g_object_ref(
			ec_form_add_widget(e->form, grid, EC_VPN_KEY_FLAGS, "Storage", e->storage));
	g_signal_connect_swapped(e->key, "changed", G_CALLBACK(on_changed), e);
	g_signal_connect_swapped(e->storage, ec_tk_choice_changed, G_CALLBACK(on_storage), e);
}

static void add_life(EcEditor *e, GtkWidget *box, NMSettingVpn *vpn)
{
	GtkWidget *grid = ec_form_section(box, "Connection");
	gboolean persistent = FALSE;

	if (vpn)
		g_object_get(vpn, NM_SETTING_VPN_PERSISTENT, &persistent, NULL);
	e->persistent = g_object_ref(gtk_check_button_new_with_label("Keep trying"));
	ec_tk_check_set(e->persistent, persistent);
	gtk_widget_set_tooltip_text(e->persistent,
			"Stay connected, and recover, when the peer or the VPN below is lost, or "
			"the computer was suspended.");
	(void)ec_form_add_widget(e->form, grid, "persistent", NULL, e->persistent);
	ec_form_add(e->form, grid, "up-with");
	g_signal_connect_swapped(e->persistent, "toggled", G_CALLBACK(on_changed), e);
}

static void add_note(EcEditor *e, GtkWidget *box)
{
	GtkWidget *advanced = gtk_button_new_with_mnemonic("Ad_vanced…");

	e->note = g_object_ref(gtk_label_new(NULL));
	gtk_widget_set_name(e->note, "ethercord-note");
	gtk_label_set_xalign(GTK_LABEL(e->note), 0);
	gtk_label_set_max_width_chars(GTK_LABEL(e->note), 60);
	g_object_set(e->note, "wrap", TRUE, NULL);
	ec_tk_add_class(e->note, "error", true);
	ec_tk_hide(e->note);
	gtk_widget_set_name(advanced, "ethercord-advanced");
	gtk_widget_set_halign(advanced, GTK_ALIGN_END);
	g_signal_connect_swapped(advanced, "clicked", G_CALLBACK(on_advanced), e);
	ec_tk_append(box, e->note);
	ec_tk_append(box, advanced);
}

static void make_page(EcEditor *e, NMSettingVpn *vpn)
{
	GtkWidget *box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
	GtkWidget *grid;

	e->page = g_object_ref_sink(box);
	ec_tk_margins(box, 12);
	grid = ec_form_section(box, "Tunnel");
	ec_form_add(e->form, grid, "remote");
	ec_form_add(e->form, grid, "mode");
	ec_form_add(e->form, grid, "bridge");
	grid = ec_form_section(box, "IP on the tunnel");
	ec_form_add(e->form, grid, "ipv4");
	ec_form_add(e->form, grid, "ipv6");
	ec_form_add(e->form, grid, "address");
	add_key(e, box, vpn);
	add_life(e, box, vpn);
	add_note(e, box);
	show(e);
	ec_tk_show_all(box);
}

/* Items that are no setting of this version: out of the table, and into a sentence. */
static void set_unknown_aside(EcEditor *e)
{
	g_autoptr(GString) names = g_string_new(NULL);
	GHashTableIter i;
	const char *key;

	g_hash_table_iter_init(&i, e->items);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, NULL)) {
		const EcSetting *row = ec_profile_find(key);

		if (row && ec_client_has(row))
			continue;
		g_string_append_printf(names, "%s%s", names->len ? ", " : "", key);
		g_hash_table_iter_remove(&i);
	}
	if (names->len)
		e->unknown = g_strdup(names->str);
}

/* NMVpnEditor */

static GObject *get_widget(NMVpnEditor *editor)
{
	return G_OBJECT(EC_EDITOR(editor)->page);
}

static bool is_good(EcEditor *e, GError **error)
{
	g_autoptr(GHashTable) problems = ec_client_check(e->items);
	g_autofree char *sentence = key_sentence(e);
	GHashTableIter i;
	const char *text = sentence;

	g_hash_table_iter_init(&i, problems);
	if (!text)
		(void)g_hash_table_iter_next(&i, NULL, (gpointer *)&text);
	if (text)
		g_set_error_literal(error, NM_CONNECTION_ERROR,
				NM_CONNECTION_ERROR_INVALID_PROPERTY, text);
	return !text;
}

static void put_key(EcEditor *e, NMSettingVpn *vpn)
{
	const char *text = ec_tk_entry_text(e->key);

	if (key_is_kept(e) && *text)
		nm_setting_vpn_add_secret(vpn, EC_VPN_KEY, text);
	else
		(void)nm_setting_vpn_remove_secret(vpn, EC_VPN_KEY);
}

static gboolean update_connection(NMVpnEditor *editor, NMConnection *c, GError **error)
{
	EcEditor *e = EC_EDITOR(editor);
	NMSettingVpn *vpn = nm_connection_get_setting_vpn(c);
	const char *key, *text;
	GHashTableIter i;

	if (!is_good(e, error))
		return FALSE;
	if (!vpn) {
		vpn = NM_SETTING_VPN(nm_setting_vpn_new());
		nm_connection_add_setting(c, NM_SETTING(vpn));
	}
	g_autofree const char **old = nm_setting_vpn_get_data_keys(vpn, NULL);
	for (const char **k = old; k && *k; k++) {
		if (!g_hash_table_contains(e->items, *k))
			(void)nm_setting_vpn_remove_data_item(vpn, *k);
	}
	g_hash_table_iter_init(&i, e->items);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, (gpointer *)&text))
		nm_setting_vpn_add_data_item(vpn, key, text);
	put_key(e, vpn);
	g_object_set(vpn, NM_SETTING_VPN_SERVICE_TYPE, EC_PROFILE_SERVICE,
			NM_SETTING_VPN_PERSISTENT, (gboolean)ec_tk_check_get(e->persistent), NULL);
	return TRUE;
}

static void editor_interface(NMVpnEditorInterface *interface)
{
	interface->get_widget = get_widget;
	interface->update_connection = update_connection;
}

static void dispose(GObject *object)
{
	EcEditor *e = EC_EDITOR(object);
	GtkWidget **own[] = { &e->key, &e->key_problem, &e->storage, &e->storage_problem,
		&e->persistent, &e->note };

	if (e->window)
		ec_tk_dialog_close(e->window);
	for (size_t i = 0; i < EC_ELEMENTS(own); i++) {
		if (*own[i])
			g_signal_handlers_disconnect_by_data(*own[i], e);
		g_clear_object(own[i]);
	}
	g_clear_pointer(&e->form, ec_form_free);
	g_clear_object(&e->page);
	g_clear_pointer(&e->items, g_hash_table_unref);
	g_clear_pointer(&e->unknown, g_free);
	G_OBJECT_CLASS(ec_editor_parent_class)->dispose(object);
}

static void ec_editor_class_init(EcEditorClass *class)
{
	G_OBJECT_CLASS(class)->dispose = dispose;
}

static void ec_editor_init(EcEditor *self)
{
}

G_MODULE_EXPORT NMVpnEditor *ec_editor_new(NMConnection *connection, GError **error)
{
	EcEditor *e = g_object_new(EC_TYPE_EDITOR, NULL);
	NMSettingVpn *vpn = connection ? nm_connection_get_setting_vpn(connection) : NULL;

	e->items = ec_client_items(vpn);
	set_unknown_aside(e);
	e->form = ec_form_new(e->items, on_changed, e);
	make_page(e, vpn);
	return NM_VPN_EDITOR(e);
}

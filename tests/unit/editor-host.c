/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <NetworkManager.h>
#include <gtk/gtk.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A program that shows the editor of a VPN connection, as the settings of a desktop do, and is told
 * by lines what its user does. Compiled for GTK 3 and for GTK 4: tests/netns/test_nm_gui.py.
 *
 *   list                 the connections of the service
 *   create ID | edit ID  opens a window with the editor
 *   set NAME TEXT        types into an entry, chooses a word, or sets a check (yes, no)
 *   get NAME             what it shows, "sensitive" or not, "error" or not
 *   fields               the names of all that is shown
 *   tooltip NAME
 *   press NAME           a button
 *   close                the window of the editor
 *   save                 into NetworkManager; "error SENTENCE" where the editor does not allow it
 *   filename ID          what an export is called
 *   changes              how often the editor has told that something changed
 *
 * Answers are lines too; "." ends each.
 */

#define SERVICE "org.freedesktop.NetworkManager.ethercord"
#define IS_FOUR (GTK_MAJOR_VERSION >= 4)

typedef struct Host {
	NMVpnEditorPlugin *plugin;
	NMClient *client;
	NMConnection *connection; /* what is being edited */
	NMVpnEditor *editor;
	GtkWidget *window;
	unsigned changes;
	GMainLoop *loop;
} Host;

typedef void (*Visit)(GtkWidget *widget, gpointer data);

#if IS_FOUR
static void each_child(GtkWidget *widget, Visit visit, gpointer data)
{
	for (GtkWidget *w = gtk_widget_get_first_child(widget); w;
			w = gtk_widget_get_next_sibling(w))
		visit(w, data);
}

static const char *entry_text(GtkWidget *w)
{
	return gtk_editable_get_text(GTK_EDITABLE(w));
}

static bool has_class(GtkWidget *w, const char *class)
{
	return gtk_widget_has_css_class(w, class);
}

static bool is_choice(GtkWidget *w)
{
	return GTK_IS_DROP_DOWN(w);
}

static char *choice_text(GtkWidget *w)
{
	GtkStringObject *item = gtk_drop_down_get_selected_item(GTK_DROP_DOWN(w));

	return g_strdup(gtk_string_object_get_string(item));
}

static void choice_set(GtkWidget *w, guint index)
{
	gtk_drop_down_set_selected(GTK_DROP_DOWN(w), index);
}

static guint choice_count(GtkWidget *w)
{
	return g_list_model_get_n_items(gtk_drop_down_get_model(GTK_DROP_DOWN(w)));
}

static bool check_get(GtkWidget *w)
{
	return gtk_check_button_get_active(GTK_CHECK_BUTTON(w));
}

static void check_set(GtkWidget *w, bool on)
{
	gtk_check_button_set_active(GTK_CHECK_BUTTON(w), on);
}

static void show_window(GtkWidget *window, GtkWidget *page)
{
	gtk_window_set_child(GTK_WINDOW(window), page);
	gtk_window_present(GTK_WINDOW(window));
}

static GtkWidget *window_new(void)
{
	return gtk_window_new();
}

static void window_destroy(GtkWidget *window)
{
	gtk_window_destroy(GTK_WINDOW(window));
}

static void start_toolkit(void)
{
	gtk_init();
}
#else
static void each_child(GtkWidget *widget, Visit visit, gpointer data)
{
	if (GTK_IS_CONTAINER(widget))
		gtk_container_forall(GTK_CONTAINER(widget), visit, data);
}

static const char *entry_text(GtkWidget *w)
{
	return gtk_entry_get_text(GTK_ENTRY(w));
}

static bool has_class(GtkWidget *w, const char *class)
{
	return gtk_style_context_has_class(gtk_widget_get_style_context(w), class);
}

static bool is_choice(GtkWidget *w)
{
	return GTK_IS_COMBO_BOX_TEXT(w);
}

static char *choice_text(GtkWidget *w)
{
	return gtk_combo_box_text_get_active_text(GTK_COMBO_BOX_TEXT(w));
}

static void choice_set(GtkWidget *w, guint index)
{
	gtk_combo_box_set_active(GTK_COMBO_BOX(w), (int)index);
}

static guint choice_count(GtkWidget *w)
{
	return (guint)gtk_tree_model_iter_n_children(
			gtk_combo_box_get_model(GTK_COMBO_BOX(w)), NULL);
}

static bool check_get(GtkWidget *w)
{
	return gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(w));
}

static void check_set(GtkWidget *w, bool on)
{
	gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(w), on);
}

static void show_window(GtkWidget *window, GtkWidget *page)
{
	gtk_container_add(GTK_CONTAINER(window), page);
	gtk_widget_show(window);
}

static GtkWidget *window_new(void)
{
	return gtk_window_new(GTK_WINDOW_TOPLEVEL);
}

static void window_destroy(GtkWidget *window)
{
	gtk_widget_destroy(window);
}

static void start_toolkit(void)
{
	gtk_init(NULL, NULL);
}
#endif

/* Finding */

typedef struct Search {
	const char *name;
	GtkWidget *found;
	bool print;
} Search;

static void visit(GtkWidget *widget, gpointer data)
{
	Search *s = data;
	const char *name = gtk_widget_get_name(widget);

	if (s->name && g_str_equal(name, s->name))
		s->found = widget;
	if (s->print && g_str_has_prefix(name, "ethercord-") && !g_str_has_suffix(name, "-problem"))
		(void)printf("%s\n", name + strlen("ethercord-"));
	each_child(widget, visit, s);
}

/* In all windows: the last that has the name. */
static GtkWidget *find(const char *name)
{
	g_autofree char *full = g_strconcat("ethercord-", name ? name : "", NULL);
	Search s = { .name = name ? full : NULL, .print = !name };
	GList *windows = gtk_window_list_toplevels();

	for (GList *w = windows; w; w = w->next)
		visit(w->data, &s);
	g_list_free(windows);
	return s.found;
}

static void settle(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		;
}

static void set_choice(GtkWidget *w, const char *text)
{
	guint n = choice_count(w), before = n;

	for (guint i = 0; i < n; i++) {
		choice_set(w, i);
		g_autofree char *now = choice_text(w);
		if (g_str_equal(now, text))
			before = i;
	}
	if (before == n)
		(void)printf("error there is no '%s'\n", text);
	else
		choice_set(w, before);
}

static void set(const char *name, const char *text)
{
	GtkWidget *w = find(name);

	if (!w)
		(void)printf("error there is no %s\n", name);
	else if (is_choice(w))
		set_choice(w, text);
	else if (GTK_IS_CHECK_BUTTON(w))
		check_set(w, g_str_equal(text, "yes"));
	else
		g_object_set(w, "text", text, NULL);
}

static void get(const char *name)
{
	GtkWidget *w = find(name);
	g_autofree char *problem_name = g_strconcat(name, "-problem", NULL);
	GtkWidget *problem = find(problem_name);
	g_autofree char *text = NULL;

	if (!w) {
		(void)printf("error there is no %s\n", name);
		return;
	}
	if (is_choice(w))
		text = choice_text(w);
	else if (GTK_IS_CHECK_BUTTON(w))
		text = g_strdup(check_get(w) ? "yes" : "no");
	else if (GTK_IS_LABEL(w))
		text = g_strdup(gtk_widget_get_visible(w) ? gtk_label_get_text(GTK_LABEL(w)) : "");
	else if (GTK_IS_ENTRY(w))
		text = g_strdup(entry_text(w));
	(void)printf("text %s\n", text ? text : "");
	(void)printf("sensitive %s\n", gtk_widget_get_sensitive(w) ? "yes" : "no");
	(void)printf("error %s\n", has_class(w, "error") ? "yes" : "no");
	(void)printf("problem %s\n", problem && gtk_widget_get_visible(problem)
						     ? gtk_label_get_text(GTK_LABEL(problem))
						     : "");
	(void)printf("placeholder %s\n",
			GTK_IS_ENTRY(w) && gtk_entry_get_placeholder_text(GTK_ENTRY(w))
					? gtk_entry_get_placeholder_text(GTK_ENTRY(w))
					: "");
}

/* Connections */

static bool is_ours(NMConnection *c)
{
	NMSettingVpn *vpn = nm_connection_get_setting_vpn(c);

	return vpn && g_strcmp0(nm_setting_vpn_get_service_type(vpn), SERVICE) == 0;
}

static void list(Host *h)
{
	const GPtrArray *all = nm_client_get_connections(h->client);

	for (guint i = 0; i < all->len; i++) {
		if (is_ours(all->pdata[i]))
			(void)printf("%s\n", nm_connection_get_id(all->pdata[i]));
	}
}

static void on_editor_changed(Host *h)
{
	h->changes++;
}

static void close_editor(Host *h)
{
	if (h->window)
		window_destroy(h->window);
	h->window = NULL;
	g_clear_object(&h->editor);
	g_clear_object(&h->connection);
}

static void open_editor(Host *h, NMConnection *c)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(NMConnection) connection = c;

	close_editor(h);
	h->editor = nm_vpn_editor_plugin_get_editor(h->plugin, connection, &error);
	if (!h->editor) {
		(void)printf("error %s\n", error->message);
		return;
	}
	h->changes = 0;
	h->connection = g_steal_pointer(&connection);
	h->window = window_new();
	gtk_window_set_title(GTK_WINDOW(h->window), nm_connection_get_id(h->connection));
	g_signal_connect_swapped(h->editor, "changed", G_CALLBACK(on_editor_changed), h);
	show_window(h->window, GTK_WIDGET(nm_vpn_editor_get_widget(h->editor)));
}

static void create(Host *h, const char *id)
{
	NMConnection *c = nm_simple_connection_new();
	NMSetting *self = nm_setting_connection_new();
	NMSetting *vpn = nm_setting_vpn_new();
	g_autofree char *uuid = nm_utils_uuid_generate();

	g_object_set(self, NM_SETTING_CONNECTION_ID, id, NM_SETTING_CONNECTION_UUID, uuid,
			NM_SETTING_CONNECTION_TYPE, NM_SETTING_VPN_SETTING_NAME, NULL);
	g_object_set(vpn, NM_SETTING_VPN_SERVICE_TYPE, SERVICE, NULL);
	nm_connection_add_setting(c, self);
	nm_connection_add_setting(c, vpn);
	open_editor(h, c);
}

static NMRemoteConnection *find_remote(Host *h, const char *id)
{
	const GPtrArray *all = nm_client_get_connections(h->client);

	for (guint i = 0; i < all->len; i++) {
		if (is_ours(all->pdata[i]) && g_str_equal(nm_connection_get_id(all->pdata[i]), id))
			return all->pdata[i];
	}
	return NULL;
}

static void on_result(GObject *source, GAsyncResult *result, gpointer data)
{
	*(GAsyncResult **)data = g_object_ref(result);
}

static void edit(Host *h, const char *id)
{
	NMRemoteConnection *remote = find_remote(h, id);
	g_autoptr(GAsyncResult) result = NULL;
	g_autoptr(GVariant) secrets = NULL;

	if (!remote) {
		(void)printf("error there is no %s\n", id);
		return;
	}
	NMConnection *c = nm_simple_connection_new_clone(NM_CONNECTION(remote));
	nm_remote_connection_get_secrets_async(remote, "vpn", NULL, on_result, &result);
	while (!result)
		(void)g_main_context_iteration(NULL, TRUE);
	secrets = nm_remote_connection_get_secrets_finish(remote, result, NULL);
	if (secrets)
		(void)nm_connection_update_secrets(c, "vpn", secrets, NULL);
	open_editor(h, c);
}

static void save(Host *h)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GAsyncResult) result = NULL;
	g_autoptr(GVariant) settings = NULL;
	NMRemoteConnection *remote = find_remote(h, nm_connection_get_id(h->connection));

	if (!nm_vpn_editor_update_connection(h->editor, h->connection, &error) ||
			!nm_connection_normalize(h->connection, NULL, NULL, &error)) {
		(void)printf("error %s\n", error->message);
		return;
	}
	settings = g_variant_ref_sink(
			nm_connection_to_dbus(h->connection, NM_CONNECTION_SERIALIZE_ALL));
	if (remote)
		nm_remote_connection_update2(remote, settings, NM_SETTINGS_UPDATE2_FLAG_TO_DISK,
				NULL, NULL, on_result, &result);
	else
		nm_client_add_connection2(h->client, settings,
				NM_SETTINGS_ADD_CONNECTION2_FLAG_TO_DISK, NULL, FALSE, NULL,
				on_result, &result);
	while (!result)
		(void)g_main_context_iteration(NULL, TRUE);
	g_autoptr(GVariant) updated =
			remote ? nm_remote_connection_update2_finish(remote, result, &error) : NULL;
	g_autoptr(NMRemoteConnection) added =
			remote ? NULL
			       : nm_client_add_connection2_finish(h->client, result, NULL, &error);
	(void)printf(updated || added ? "saved\n" : "error %s\n", error ? error->message : "");
}

static void filename(Host *h, const char *id)
{
	NMRemoteConnection *remote = find_remote(h, id);
	g_autofree char *name = remote ? nm_vpn_editor_plugin_get_suggested_filename(
							 h->plugin, NM_CONNECTION(remote))
				       : NULL;

	(void)printf("%s\n", name ? name : "error there is none");
}

static void tooltip(const char *name)
{
	GtkWidget *w = find(name);
	g_autofree char *text = NULL;

	if (w)
		g_object_get(w, "tooltip-text", &text, NULL);
	(void)printf("%s\n", text ? g_strdelimit(text, "\n", ' ') : "");
}

static void press(const char *name)
{
	GtkWidget *w = find(name);

	if (w && gtk_widget_get_sensitive(w))
		g_signal_emit_by_name(w, "clicked");
	else
		(void)printf("error %s cannot be pressed\n", name);
}

static void obey(Host *h, char *line)
{
	char *first = line, *rest = line + strcspn(line, " ");
	char *text = NULL;

	/* The second word, and for what is set the third. */
	if (*rest)
		*rest++ = '\0';
	if (g_str_equal(first, "set") && (text = strchr(rest, ' ')))
		*text++ = '\0';
	if (g_str_equal(first, "list"))
		list(h);
	else if (g_str_equal(first, "create"))
		create(h, rest);
	else if (g_str_equal(first, "edit"))
		edit(h, rest);
	else if (g_str_equal(first, "set"))
		set(rest, text ? text : "");
	else if (g_str_equal(first, "get"))
		get(rest);
	else if (g_str_equal(first, "fields"))
		(void)find(NULL);
	else if (g_str_equal(first, "tooltip"))
		tooltip(rest);
	else if (g_str_equal(first, "press"))
		press(rest);
	else if (g_str_equal(first, "close"))
		close_editor(h);
	else if (g_str_equal(first, "save"))
		save(h);
	else if (g_str_equal(first, "filename"))
		filename(h, rest);
	else if (g_str_equal(first, "changes"))
		(void)printf("%u\n", h->changes);
	else
		(void)printf("error what is %s\n", first);
	settle();
	(void)printf(".\n");
	(void)fflush(stdout);
}

static gboolean on_line(GIOChannel *channel, GIOCondition condition, gpointer data)
{
	Host *h = data;
	g_autofree char *line = NULL;
	gsize end = 0;

	if (g_io_channel_read_line(channel, &line, NULL, &end, NULL) != G_IO_STATUS_NORMAL) {
		g_main_loop_quit(h->loop);
		return G_SOURCE_REMOVE;
	}
	line[end] = '\0';
	obey(h, line);
	return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv)
{
	Host h = { .loop = g_main_loop_new(NULL, FALSE) };
	g_autoptr(GError) error = NULL;
	GIOChannel *input = g_io_channel_unix_new(0);

	start_toolkit();
	h.plugin = nm_vpn_editor_plugin_load(argv[1], SERVICE, &error);
	h.client = h.plugin ? nm_client_new(NULL, &error) : NULL;
	if (!h.client) {
		(void)fprintf(stderr, "%s\n", error->message);
		return EXIT_FAILURE;
	}
	(void)g_io_add_watch(input, G_IO_IN | G_IO_HUP, on_line, &h);
	(void)printf("ready\n.\n");
	(void)fflush(stdout);
	g_main_loop_run(h.loop);
	close_editor(&h);
	g_object_unref(h.plugin);
	g_object_unref(h.client);
	g_io_channel_unref(input);
	g_main_loop_unref(h.loop);
	return EXIT_SUCCESS;
}

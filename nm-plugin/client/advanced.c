/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "form.h"
#include "toolkit.h"

#define WIDTH 560
#define HEIGHT 600

typedef struct Advanced {
	GtkWindow *window;
	GtkWidget *apply;
	GHashTable *items; /* the page's */
	GHashTable *copy;  /* what is shown here */
	EcForm *form;
	void (*applied)(gpointer data);
	gpointer data;
} Advanced;

/* Where a key stands. One that is in none of them, because it is new, stands under the last. */
static const struct {
	const char *heading;
	const char *const keys[12];
} sections[] = {
	{ "Tunnel", { "tunnel-name", "tunnel", "interface", "mac", "mtu" } },
	{ "Peer", { "underlay", "local", "control", "port", "identity", "roam" } },
	{ "Packets", { "encapsulation", "data-plane", "id", "data-port", "remote-data-port", "ttl",
				     "dscp", "fwmark" } },
	{ "Frames", { "full-frames", "split", "fidelity", "guard", "storm-limit" } },
	{ "Bridge", { "bridge-create", "attach", "link-loss-forwarding" } },
	{ "Keepalive", { "keepalive-interval", "keepalive-timeout", "gre-keepalive" } },
};

static void free_advanced(gpointer data, GClosure *closure)
{
	Advanced *a = data;

	ec_form_free(a->form);
	g_hash_table_unref(a->items);
	g_hash_table_unref(a->copy);
	g_free(a);
}

static GHashTable *copy_of(GHashTable *items)
{
	GHashTable *copy = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	const char *key, *text;
	GHashTableIter i;

	g_hash_table_iter_init(&i, items);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, (gpointer *)&text))
		g_hash_table_insert(copy, g_strdup(key), g_strdup(text));
	return copy;
}

/* What is wrong elsewhere does not keep anybody in here. */
static void check(Advanced *a)
{
	g_autoptr(GHashTable) problems = ec_client_check(a->copy);
	GHashTableIter i;
	const char *key;
	bool good = true;

	g_hash_table_iter_init(&i, problems);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, NULL))
		good = good && !ec_form_has(a->form, key);
	ec_form_show(a->form, problems);
	gtk_widget_set_sensitive(a->apply, good);
}

static void on_changed(gpointer data)
{
	check(data);
}

static void close_window(gpointer data)
{
	const Advanced *a = data;

	ec_tk_dialog_close(a->window);
}

static void on_apply(gpointer data)
{
	Advanced *a = data;
	g_autoptr(GHashTable) copy = copy_of(a->copy);
	const char *key, *text;
	GHashTableIter i;

	g_hash_table_remove_all(a->items);
	g_hash_table_iter_init(&i, copy);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, (gpointer *)&text))
		g_hash_table_insert(a->items, g_strdup(key), g_strdup(text));
	void (*applied)(gpointer data) = a->applied;
	gpointer of = a->data;
	close_window(a);
	applied(of);
}

static void add_rest(Advanced *a, GtkWidget *box, const char *const *elsewhere)
{
	GtkWidget *grid = NULL;
	size_t n[2];
	const EcSetting *rows[2] = { ec_settings_table(&n[0]), ec_profile_table(&n[1]) };

	for (size_t t = 0; t < EC_ELEMENTS(rows); t++) {
		for (size_t i = 0; i < n[t]; i++) {
			const EcSetting *row = &rows[t][i];

			if (!ec_client_has(row) || ec_form_has(a->form, row->key) ||
					g_strv_contains(elsewhere, row->key))
				continue;
			if (!grid)
				grid = ec_form_section(box, "Other");
			ec_form_add(a->form, grid, row->key);
		}
	}
}

static GtkWidget *make_content(Advanced *a, const char *const *elsewhere)
{
	GtkWidget *box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
	GtkWidget *scrolled = ec_tk_scrolled_new(box);

	ec_tk_margins(box, 18);
	for (size_t s = 0; s < EC_ELEMENTS(sections); s++) {
		GtkWidget *grid = ec_form_section(box, sections[s].heading);

		for (const char *const *key = sections[s].keys; *key; key++)
			ec_form_add(a->form, grid, *key);
	}
	add_rest(a, box, elsewhere);
	gtk_scrolled_window_set_policy(
			GTK_SCROLLED_WINDOW(scrolled), GTK_POLICY_NEVER, GTK_POLICY_AUTOMATIC);
	return scrolled;
}

GtkWindow *ec_advanced_open(GtkWidget *parent, GHashTable *items, const char *const *elsewhere,
		void (*applied)(gpointer data), gpointer data)
{
	GtkWidget *cancel = gtk_button_new_with_mnemonic("_Cancel");
	Advanced *a = g_new(Advanced, 1);

	*a = (Advanced){
		.apply = gtk_button_new_with_mnemonic("_Apply"),
		.items = g_hash_table_ref(items),
		.copy = copy_of(items),
		.applied = applied,
		.data = data,
	};
	a->form = ec_form_new(a->copy, on_changed, a);
	gtk_widget_set_name(cancel, "ethercord-cancel");
	gtk_widget_set_name(a->apply, "ethercord-apply");
	a->window = ec_tk_dialog_new(parent, "Advanced options of the tunnel",
			make_content(a, elsewhere), cancel, a->apply);
	gtk_window_set_default_size(a->window, WIDTH, HEIGHT);
	g_signal_connect_swapped(cancel, "clicked", G_CALLBACK(close_window), a);
	g_signal_connect_swapped(a->apply, "clicked", G_CALLBACK(on_apply), a);
	ec_tk_dialog_on_close(a->window, close_window, a);
	/* With the window, whoever closes it. */
	g_signal_connect_data(
			a->window, "destroy", G_CALLBACK(gtk_widget_get_name), a, free_advanced, 0);
	check(a);
	ec_tk_show_all(GTK_WIDGET(a->window));
	gtk_window_present(a->window);
	return a->window;
}

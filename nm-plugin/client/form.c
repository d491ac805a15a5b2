/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "form.h"

#include <string.h>

#include "toolkit.h"

typedef struct Field {
	EcForm *form;
	const EcSetting *row;
	GtkWidget *widget, *problem;
	char **words; /* of a choice: what each place stands for; "" for not given */
	char *loaded; /* what was given when the form was made, or NULL */
	bool touched;
} Field;

struct EcForm {
	GPtrArray *fields;
	GtkSizeGroup *column; /* of the labels, through all sections */
	GHashTable *items;
	void (*changed)(gpointer data);
	gpointer data;
};

/* Words that are no plain English when '-' is made a blank. */
static const struct {
	const char *key, *label;
} labels[] = {
	{ "tunnel", "Existing tunnel" },
	{ "local", "Local address" },
	{ "port", "Control port" },
	{ "id", "Key or network identifier" },
	{ "address", "Addresses" },
	{ "mac", "MAC address" },
	{ "mtu", "MTU" },
	{ "ttl", "TTL" },
	{ "dscp", "DSCP" },
	{ "fwmark", "Firewall mark" },
	{ "ipv4", "IPv4" },
	{ "ipv6", "IPv6" },
	{ "up-with", "Bring up with" },
	{ "bridge-create", "Make the bridge when it is missing" },
	{ "link-loss-forwarding", "Forward the loss of the link" },
	{ "roam", "Take whoever sends last for the peer" },
	{ "attach", "Interface to attach" },
	{ "split", "Split large frames" },
	{ "storm-limit", "Storm limit (frames/s)" },
	{ "keepalive-interval", "Keepalive interval (ms)" },
	{ "keepalive-timeout", "Keepalive timeout (ms)" },
	{ "gre-keepalive", "GRE keepalive" },
	{ "dhcp", "Automatic (DHCP)" },
};

char *ec_form_label(const char *key)
{
	for (size_t i = 0; i < EC_ELEMENTS(labels); i++) {
		if (g_str_equal(labels[i].key, key))
			return g_strdup(labels[i].label);
	}
	char *label = g_strdelimit(g_strdup(key), "-", ' ');
	label[0] = (char)g_ascii_toupper(label[0]);
	return label;
}

/* The label of a word of a choice. In IPv6 the two automatic ways differ. */
static char *word_label(const EcSetting *row, const char *word)
{
	if (g_str_equal(row->key, "ipv6") && g_str_equal(word, "auto"))
		return g_strdup("Automatic (router advertisements)");
	if (g_str_equal(row->key, "ipv6") && g_str_equal(word, "dhcp"))
		return g_strdup("Automatic (DHCPv6 only)");
	if (g_str_equal(word, "auto"))
		return g_strdup("Automatic");
	return ec_form_label(word);
}

/* The help is marked up for the manual, *word*: here as bold. */
static void append_help(GString *text, const char *help)
{
	bool bold = false;

	for (; *help; help++) {
		if (*help == '*') {
			bold = !bold;
			g_string_append(text, bold ? "<b>" : "</b>");
		} else {
			g_autofree char *c = g_markup_escape_text(help, 1);
			g_string_append(text, c);
		}
	}
}

static char *allowed_of(const EcSetting *row)
{
	if (row->choices)
		return g_strjoinv(", ", (char **)row->choices);
	if (row->type == EC_SETTING_UINT16 || row->type == EC_SETTING_UINT32)
		return g_strdup_printf("%u to %u", row->min, row->max);
	return g_strdup(row->allowed);
}

static const char *fallback_of(const EcSetting *row)
{
	return row->fallback_help ? row->fallback_help : row->fallback;
}

/* What an empty entry means. */
static const char *placeholder_of(const EcSetting *row)
{
	if (fallback_of(row))
		return fallback_of(row);
	return g_str_equal(row->key, "remote") ? "addresses or host names" : "none";
}

char *ec_form_tooltip(const EcSetting *row)
{
	GString *text = g_string_new(NULL);
	g_autofree char *allowed = allowed_of(row);

	append_help(text, row->help);
	if (allowed && !row->choices) {
		g_string_append(text, "\nAllowed: ");
		append_help(text, allowed);
	}
	if (fallback_of(row)) {
		g_string_append(text, "\nDefault: ");
		append_help(text, fallback_of(row));
	}
	return g_string_free(text, FALSE);
}

/* What the widget says; NULL: not given. */
static char *text_of(const Field *f)
{
	g_autofree char *text = NULL;
	const EcSetting *row = f->row;

	if (GTK_IS_ENTRY(f->widget))
		text = g_strstrip(g_strdup(ec_tk_entry_text(f->widget)));
	else if (GTK_IS_CHECK_BUTTON(f->widget))
		text = g_strdup(ec_tk_check_get(f->widget) ? "yes" : "no");
	else
		text = g_strdup(f->words[ec_tk_choice_get(f->widget)]);
	/* The default is left out, unless the connection said it. */
	bool same = !GTK_IS_ENTRY(f->widget) && g_strcmp0(text, row->fallback) == 0 &&
		    g_strcmp0(text, f->loaded) != 0;
	return *text && !same ? g_steal_pointer(&text) : NULL;
}

static void on_changed(Field *f)
{
	g_autofree char *text = text_of(f);

	f->touched = true;
	if (text)
		g_hash_table_insert(f->form->items, g_strdup(f->row->key), g_steal_pointer(&text));
	else
		g_hash_table_remove(f->form->items, f->row->key);
	f->form->changed(f->form->data);
}

static GtkWidget *make_entry(Field *f, const char *text)
{
	GtkWidget *entry = gtk_entry_new();
	const EcSetting *row = f->row;

	if (row->type == EC_SETTING_UINT16 || row->type == EC_SETTING_UINT32)
		gtk_entry_set_input_purpose(GTK_ENTRY(entry), GTK_INPUT_PURPOSE_DIGITS);
	gtk_entry_set_placeholder_text(GTK_ENTRY(entry), placeholder_of(row));
	g_object_set(entry, "width-chars", 30, NULL);
	if (text)
		ec_tk_entry_set_text(entry, text);
	g_signal_connect_swapped(entry, "changed", G_CALLBACK(on_changed), f);
	return entry;
}

static GtkWidget *make_choice(Field *f, const char *text)
{
	g_autoptr(GStrvBuilder) words = g_strv_builder_new(), shown = g_strv_builder_new();
	const char *current = text ? text : f->row->fallback;
	unsigned at = 0;

	if (!f->row->fallback) {
		g_strv_builder_add(words, "");
		g_strv_builder_add(shown, "By the connection's settings");
	}
	for (const char *const *w = f->row->choices; *w; w++) {
		/* In IPv4 both ways are one. */
		if (g_str_equal(f->row->key, "ipv4") && g_str_equal(*w, "auto") &&
				g_strcmp0(current, *w) != 0)
			continue;
		g_autofree char *label = word_label(f->row, *w);
		g_strv_builder_add(words, *w);
		g_strv_builder_add(shown, label);
	}
	f->words = g_strv_builder_end(words);
	g_auto(GStrv) list = g_strv_builder_end(shown);
	while (current && f->words[at] && !g_str_equal(f->words[at], current))
		at++;
	GtkWidget *choice = ec_tk_choice_new((const char *const *)list);
	ec_tk_choice_set(choice, at);
	g_signal_connect_swapped(choice, ec_tk_choice_changed, G_CALLBACK(on_changed), f);
	return choice;
}

static GtkWidget *make_check(Field *f, const char *text)
{
	g_autofree char *label = ec_form_label(f->row->key);
	GtkWidget *check = gtk_check_button_new_with_label(label);
	const char *current = text ? text : f->row->fallback;

	ec_tk_check_set(check, g_strcmp0(current, "yes") == 0);
	g_signal_connect_swapped(check, "toggled", G_CALLBACK(on_changed), f);
	return check;
}

/* The words that a check or a choice knows: yes for on, 1, true. NULL where the text is no value:
 * then it is shown as it stands, to be mended. */
static char *canonical(const EcSetting *row, const char *text)
{
	g_autoptr(EcProfile) p = ec_profile_new();

	return ec_profile_set(p, row->key, text, NULL) < 0 ? NULL : ec_profile_text(p, row->key);
}

static void free_field(gpointer data)
{
	Field *f = data;

	g_signal_handlers_disconnect_by_data(f->widget, f);
	g_object_unref(f->widget);
	g_object_unref(f->problem);
	g_strfreev(f->words);
	g_free(f->loaded);
	g_free(f);
}

EcForm *ec_form_new(GHashTable *items, void (*changed)(gpointer data), gpointer data)
{
	EcForm *form = g_new(EcForm, 1);

	*form = (EcForm){
		.fields = g_ptr_array_new_with_free_func(free_field),
		.column = gtk_size_group_new(GTK_SIZE_GROUP_HORIZONTAL),
		.items = g_hash_table_ref(items),
		.changed = changed,
		.data = data,
	};
	return form;
}

void ec_form_free(EcForm *form)
{
	if (!form)
		return;
	g_ptr_array_unref(form->fields);
	g_object_unref(form->column);
	g_hash_table_unref(form->items);
	g_free(form);
}

GtkWidget *ec_form_section(GtkWidget *box, const char *heading)
{
	GtkWidget *label = gtk_label_new(NULL);
	GtkWidget *grid = gtk_grid_new();
	g_autofree char *markup = g_markup_printf_escaped("<b>%s</b>", heading);

	gtk_label_set_markup(GTK_LABEL(label), markup);
	gtk_widget_set_halign(label, GTK_ALIGN_START);
	gtk_grid_set_row_spacing(GTK_GRID(grid), 6);
	gtk_grid_set_column_spacing(GTK_GRID(grid), 12);
	gtk_widget_set_margin_start(grid, 12);
	gtk_widget_set_margin_bottom(grid, 12);
	ec_tk_append(box, label);
	ec_tk_append(box, grid);
	return grid;
}

/* The number of lines that a grid has. */
static int lines_of(GtkWidget *grid)
{
	int n = 0;

	while (gtk_grid_get_child_at(GTK_GRID(grid), 1, n))
		n++;
	return n;
}

static GtkWidget *make_problem(const char *key)
{
	GtkWidget *problem = gtk_label_new(NULL);
	g_autofree char *name = g_strdup_printf("ethercord-%s-problem", key);

	gtk_widget_set_name(problem, name);
	gtk_label_set_xalign(GTK_LABEL(problem), 0);
	gtk_label_set_max_width_chars(GTK_LABEL(problem), 44);
	/* GTK 3's gtk_label_set_line_wrap() is GTK 4's gtk_label_set_wrap(); the property is one.
	 */
	g_object_set(problem, "wrap", TRUE, NULL);
	ec_tk_add_class(problem, "error", true);
	ec_tk_hide(problem);
	return problem;
}

GtkWidget *ec_form_add_widget(EcForm *form, GtkWidget *grid, const char *key, const char *label,
		GtkWidget *widget)
{
	g_autofree char *name = g_strdup_printf("ethercord-%s", key);
	GtkWidget *problem = make_problem(key);
	int line = lines_of(grid);

	gtk_widget_set_name(widget, name);
	gtk_widget_set_hexpand(widget, TRUE);
	if (label) {
		GtkWidget *of = gtk_label_new(label);

		gtk_widget_set_halign(of, GTK_ALIGN_START);
		gtk_label_set_xalign(GTK_LABEL(of), 0);
		gtk_size_group_add_widget(form->column, of);
		gtk_grid_attach(GTK_GRID(grid), of, 0, line, 1, 1);
		ec_tk_label_for(of, widget);
	}
	gtk_grid_attach(GTK_GRID(grid), widget, 1, line, 1, 1);
	gtk_grid_attach(GTK_GRID(grid), problem, 1, line + 1, 1, 1);
	return problem;
}

void ec_form_add(EcForm *form, GtkWidget *grid, const char *key)
{
	const EcSetting *row = ec_profile_find(key);
	const char *text = g_hash_table_lookup(form->items, key);
	g_autofree char *word = text ? canonical(row, text) : NULL;
	g_autofree char *label = ec_form_label(key);
	g_autofree char *tooltip = ec_form_tooltip(row);
	bool shown_as_text = text && !word;
	Field *f = g_new0(Field, 1);

	f->form = form;
	f->row = row;
	f->loaded = g_strdup(word);
	if (row->type == EC_SETTING_CHOICE && !shown_as_text)
		f->widget = make_choice(f, word);
	else if (row->type == EC_SETTING_BOOL && !shown_as_text)
		f->widget = make_check(f, word);
	else
		f->widget = make_entry(f, text);
	gtk_widget_set_tooltip_markup(f->widget, tooltip);
	f->problem = ec_form_add_widget(
			form, grid, key, GTK_IS_CHECK_BUTTON(f->widget) ? NULL : label, f->widget);
	g_object_ref(f->widget);
	g_object_ref(f->problem);
	g_ptr_array_add(form->fields, f);
}

static Field *find(const EcForm *form, const char *key)
{
	for (guint i = 0; i < form->fields->len; i++) {
		Field *f = form->fields->pdata[i];

		if (g_str_equal(f->row->key, key))
			return f;
	}
	return NULL;
}

bool ec_form_has(const EcForm *form, const char *key)
{
	return find(form, key);
}

void ec_form_set_sensitive(EcForm *form, const char *key, bool sensitive)
{
	const Field *f = find(form, key);

	if (f)
		gtk_widget_set_sensitive(f->widget, sensitive);
}

/* Without the key and the value that the sentence begins with: they stand above it. */
static char *shorten(const char *key, const char *sentence)
{
	size_t n = strlen(key);
	const char *rest = sentence;

	if (g_str_has_prefix(sentence, key) && strchr(": =", sentence[n])) {
		const char *colon = strstr(sentence + n, ": ");
		rest = colon ? colon + 2 : sentence;
	}
	char *text = g_strdup(rest);
	/* Not a setting's name, as in mode=join-networks. */
	if (text[strcspn(text, " =")] != '=')
		text[0] = (char)g_ascii_toupper(text[0]);
	return text;
}

void ec_form_show_problem(
		GtkWidget *widget, GtkWidget *problem, const char *key, const char *sentence)
{
	g_autofree char *text = sentence ? shorten(key, sentence) : g_strdup("");

	ec_tk_add_class(widget, "error", sentence);
	gtk_label_set_text(GTK_LABEL(problem), text);
	gtk_widget_set_visible(problem, sentence != NULL);
}

void ec_form_show(EcForm *form, GHashTable *problems)
{
	for (guint i = 0; i < form->fields->len; i++) {
		const Field *f = form->fields->pdata[i];
		const char *sentence = g_hash_table_lookup(problems, f->row->key);
		/* What everybody has to fill in is not wrong before anybody had the time. */
		bool blank = !f->touched && g_str_equal(f->row->key, "remote") &&
			     !g_hash_table_lookup(form->items, f->row->key);

		ec_form_show_problem(f->widget, f->problem, f->row->key, blank ? NULL : sentence);
	}
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "toolkit.h"

#define IS_FOUR (GTK_MAJOR_VERSION >= 4)

typedef struct Closing {
	void (*closed)(gpointer data);
	gpointer data;
} Closing;

#if IS_FOUR

const char *const ec_tk_choice_changed = "notify::selected";

void ec_tk_append(GtkWidget *box, GtkWidget *child)
{
	gtk_box_append(GTK_BOX(box), child);
}

void ec_tk_show_all(GtkWidget *widget)
{
	gtk_widget_set_visible(widget, TRUE);
}

void ec_tk_hide(GtkWidget *widget)
{
	gtk_widget_set_visible(widget, FALSE);
}

void ec_tk_add_class(GtkWidget *widget, const char *class, bool present)
{
	if (present)
		gtk_widget_add_css_class(widget, class);
	else
		gtk_widget_remove_css_class(widget, class);
}

const char *ec_tk_entry_text(GtkWidget *entry)
{
	return gtk_editable_get_text(GTK_EDITABLE(entry));
}

void ec_tk_entry_set_text(GtkWidget *entry, const char *text)
{
	gtk_editable_set_text(GTK_EDITABLE(entry), text);
}

GtkWidget *ec_tk_choice_new(const char *const *labels)
{
	return gtk_drop_down_new_from_strings(labels);
}

unsigned ec_tk_choice_get(GtkWidget *choice)
{
	return gtk_drop_down_get_selected(GTK_DROP_DOWN(choice));
}

void ec_tk_choice_set(GtkWidget *choice, unsigned index)
{
	gtk_drop_down_set_selected(GTK_DROP_DOWN(choice), index);
}

bool ec_tk_check_get(GtkWidget *check)
{
	return gtk_check_button_get_active(GTK_CHECK_BUTTON(check));
}

void ec_tk_check_set(GtkWidget *check, bool active)
{
	gtk_check_button_set_active(GTK_CHECK_BUTTON(check), active);
}

GtkWidget *ec_tk_scrolled_new(GtkWidget *child)
{
	GtkWidget *scrolled = gtk_scrolled_window_new();

	gtk_scrolled_window_set_child(GTK_SCROLLED_WINDOW(scrolled), child);
	return scrolled;
}

static GtkWindow *window_of(GtkWidget *widget)
{
	GtkRoot *root = gtk_widget_get_root(widget);

	return GTK_IS_WINDOW(root) ? GTK_WINDOW(root) : NULL;
}

static GtkWidget *window_new(void)
{
	return gtk_window_new();
}

static void window_set_child(GtkWidget *window, GtkWidget *child)
{
	gtk_window_set_child(GTK_WINDOW(window), child);
}

void ec_tk_dialog_close(GtkWindow *dialog)
{
	gtk_window_destroy(dialog);
}

static gboolean on_close(GtkWindow *dialog, gpointer userdata)
{
	const Closing *closing = userdata;

	closing->closed(closing->data);
	return TRUE;
}

#	define CLOSE_SIGNAL "close-request"

static void close_by_escape(GtkWidget *window, GtkWidget *cancel)
{
	GtkEventController *keys = gtk_shortcut_controller_new();

	gtk_shortcut_controller_add_shortcut(GTK_SHORTCUT_CONTROLLER(keys),
			gtk_shortcut_new(gtk_keyval_trigger_new(GDK_KEY_Escape, 0),
					gtk_named_action_new("window.close")));
	gtk_widget_add_controller(window, keys);
}

void ec_tk_label_for(GtkWidget *label, GtkWidget *widget)
{
	gtk_label_set_mnemonic_widget(GTK_LABEL(label), widget);
	gtk_accessible_update_relation(GTK_ACCESSIBLE(widget), GTK_ACCESSIBLE_RELATION_LABELLED_BY,
			label, NULL, -1);
}

#else

const char *const ec_tk_choice_changed = "changed";

void ec_tk_append(GtkWidget *box, GtkWidget *child)
{
	gtk_container_add(GTK_CONTAINER(box), child);
}

void ec_tk_show_all(GtkWidget *widget)
{
	gtk_widget_show_all(widget);
}

void ec_tk_hide(GtkWidget *widget)
{
	gtk_widget_hide(widget);
	gtk_widget_set_no_show_all(widget, TRUE);
}

void ec_tk_add_class(GtkWidget *widget, const char *class, bool present)
{
	GtkStyleContext *style = gtk_widget_get_style_context(widget);

	if (present)
		gtk_style_context_add_class(style, class);
	else
		gtk_style_context_remove_class(style, class);
}

const char *ec_tk_entry_text(GtkWidget *entry)
{
	return gtk_entry_get_text(GTK_ENTRY(entry));
}

void ec_tk_entry_set_text(GtkWidget *entry, const char *text)
{
	gtk_entry_set_text(GTK_ENTRY(entry), text);
}

GtkWidget *ec_tk_choice_new(const char *const *labels)
{
	GtkWidget *choice = gtk_combo_box_text_new();

	for (; *labels; labels++)
		gtk_combo_box_text_append_text(GTK_COMBO_BOX_TEXT(choice), *labels);
	gtk_combo_box_set_active(GTK_COMBO_BOX(choice), 0);
	return choice;
}

unsigned ec_tk_choice_get(GtkWidget *choice)
{
	int active = gtk_combo_box_get_active(GTK_COMBO_BOX(choice));

	return active < 0 ? 0 : (unsigned)active;
}

void ec_tk_choice_set(GtkWidget *choice, unsigned index)
{
	gtk_combo_box_set_active(GTK_COMBO_BOX(choice), (int)index);
}

bool ec_tk_check_get(GtkWidget *check)
{
	return gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(check));
}

void ec_tk_check_set(GtkWidget *check, bool active)
{
	gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(check), active);
}

GtkWidget *ec_tk_scrolled_new(GtkWidget *child)
{
	GtkWidget *scrolled = gtk_scrolled_window_new(NULL, NULL);

	gtk_container_add(GTK_CONTAINER(scrolled), child);
	return scrolled;
}

static GtkWindow *window_of(GtkWidget *widget)
{
	GtkWidget *top = gtk_widget_get_toplevel(widget);

	return GTK_IS_WINDOW(top) ? GTK_WINDOW(top) : NULL;
}

static GtkWidget *window_new(void)
{
	GtkWidget *window = gtk_window_new(GTK_WINDOW_TOPLEVEL);

	gtk_window_set_type_hint(GTK_WINDOW(window), GDK_WINDOW_TYPE_HINT_DIALOG);
	gtk_window_set_position(GTK_WINDOW(window), GTK_WIN_POS_CENTER_ON_PARENT);
	return window;
}

static void window_set_child(GtkWidget *window, GtkWidget *child)
{
	gtk_container_add(GTK_CONTAINER(window), child);
}

void ec_tk_dialog_close(GtkWindow *dialog)
{
	gtk_widget_destroy(GTK_WIDGET(dialog));
}

static gboolean on_close(GtkWindow *dialog, GdkEvent *event, gpointer userdata)
{
	const Closing *closing = userdata;

	closing->closed(closing->data);
	return TRUE;
}

#	define CLOSE_SIGNAL "delete-event"

static void close_by_escape(GtkWidget *window, GtkWidget *cancel)
{
	GtkAccelGroup *keys = gtk_accel_group_new();

	gtk_window_add_accel_group(GTK_WINDOW(window), keys);
	gtk_widget_add_accelerator(cancel, "clicked", keys, GDK_KEY_Escape, 0, 0);
	g_object_unref(keys);
}

void ec_tk_label_for(GtkWidget *label, GtkWidget *widget)
{
	gtk_label_set_mnemonic_widget(GTK_LABEL(label), widget);
}

#endif

void ec_tk_margins(GtkWidget *widget, int margin)
{
	gtk_widget_set_margin_top(widget, margin);
	gtk_widget_set_margin_bottom(widget, margin);
	gtk_widget_set_margin_start(widget, margin);
	gtk_widget_set_margin_end(widget, margin);
}

static void show_text(GtkEntry *entry, bool visible)
{
	gtk_entry_set_visibility(entry, visible);
	gtk_entry_set_icon_from_icon_name(entry, GTK_ENTRY_ICON_SECONDARY,
			visible ? "view-conceal-symbolic" : "view-reveal-symbolic");
	gtk_entry_set_icon_tooltip_text(entry, GTK_ENTRY_ICON_SECONDARY,
			visible ? "Hide the text" : "Show the text");
}

/* GTK 3 gives one argument more, the event. */
static void on_icon(GtkEntry *entry)
{
	show_text(entry, !gtk_entry_get_visibility(entry));
}

GtkWidget *ec_tk_password_new(void)
{
	GtkWidget *entry = gtk_entry_new();

	gtk_entry_set_input_purpose(GTK_ENTRY(entry), GTK_INPUT_PURPOSE_PASSWORD);
	show_text(GTK_ENTRY(entry), false);
	g_signal_connect(entry, "icon-press", G_CALLBACK(on_icon), NULL);
	return entry;
}

GtkWindow *ec_tk_dialog_new(GtkWidget *parent, const char *title, GtkWidget *content,
		GtkWidget *cancel, GtkWidget *apply)
{
	GtkWidget *window = window_new();
	GtkWidget *bar = gtk_header_bar_new();

	gtk_header_bar_pack_start(GTK_HEADER_BAR(bar), cancel);
	gtk_header_bar_pack_end(GTK_HEADER_BAR(bar), apply);
	ec_tk_add_class(apply, "suggested-action", true);
	gtk_window_set_titlebar(GTK_WINDOW(window), bar);
	gtk_window_set_title(GTK_WINDOW(window), title);
#if IS_FOUR
	gtk_header_bar_set_show_title_buttons(GTK_HEADER_BAR(bar), FALSE);
#else
	gtk_header_bar_set_title(GTK_HEADER_BAR(bar), title);
#endif
	gtk_window_set_transient_for(GTK_WINDOW(window), window_of(parent));
	gtk_window_set_modal(GTK_WINDOW(window), TRUE);
	gtk_window_set_destroy_with_parent(GTK_WINDOW(window), TRUE);
	window_set_child(window, content);
	close_by_escape(window, cancel);
	return GTK_WINDOW(window);
}

static void free_closing(gpointer data, GClosure *closure)
{
	g_free(data);
}

void ec_tk_dialog_on_close(GtkWindow *dialog, void (*closed)(gpointer data), gpointer data)
{
	Closing *closing = g_new(Closing, 1);

	*closing = (Closing){ .closed = closed, .data = data };
	g_signal_connect_data(dialog, CLOSE_SIGNAL, G_CALLBACK(on_close), closing, free_closing, 0);
}

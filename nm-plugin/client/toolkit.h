/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gtk/gtk.h>
#include <stdbool.h>

/*
 * What GTK 3 and GTK 4 call by different names. The editor is compiled once for each; nothing
 * outside toolkit.c asks which it is.
 */

/* Puts a child after those that the box has. */
void ec_tk_append(GtkWidget *box, GtkWidget *child);
void ec_tk_margins(GtkWidget *widget, int margin);
/* GTK 3 shows nothing by itself. */
void ec_tk_show_all(GtkWidget *widget);
/* Not shown until gtk_widget_set_visible() says so. */
void ec_tk_hide(GtkWidget *widget);
void ec_tk_add_class(GtkWidget *widget, const char *class, bool present);

const char *ec_tk_entry_text(GtkWidget *entry);
void ec_tk_entry_set_text(GtkWidget *entry, const char *text);
/* An entry whose text shows as dots, with an icon that shows it. */
GtkWidget *ec_tk_password_new(void);

/* A list of words to choose one from. */
GtkWidget *ec_tk_choice_new(const char *const *labels);
unsigned ec_tk_choice_get(GtkWidget *choice);
void ec_tk_choice_set(GtkWidget *choice, unsigned index);
/* The signal that it was chosen from. */
extern const char *const ec_tk_choice_changed;

bool ec_tk_check_get(GtkWidget *check);
void ec_tk_check_set(GtkWidget *check, bool active);

GtkWidget *ec_tk_scrolled_new(GtkWidget *child);
/* A modal window with Cancel and a button that applies, above the one that has `parent`. */
GtkWindow *ec_tk_dialog_new(GtkWidget *parent, const char *title, GtkWidget *content,
		GtkWidget *cancel, GtkWidget *apply);
void ec_tk_dialog_close(GtkWindow *dialog);
/* Called with the data when the user closes the window. */
void ec_tk_dialog_on_close(GtkWindow *dialog, void (*closed)(gpointer data), gpointer data);
/* The widget is named by the label, for those who hear it. */
void ec_tk_label_for(GtkWidget *label, GtkWidget *widget);

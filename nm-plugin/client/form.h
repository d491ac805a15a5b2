/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gtk/gtk.h>

#include "client.h"

/*
 * Fields of a page, each made from a row of a table of settings: what kind of widget it is, its
 * tooltip, the default that it shows while it is empty. A form reads from and writes to a table of
 * items (key -> text; nothing for what is not given), and marks what is wrong with them.
 */
typedef struct EcForm EcForm;

/* `changed` is called after the user has changed an item. */
EcForm *ec_form_new(GHashTable *items, void (*changed)(gpointer data), gpointer data);
void ec_form_free(EcForm *form);

/* A grid for fields, beneath a heading, at the end of a box. */
GtkWidget *ec_form_section(GtkWidget *box, const char *heading);
/* The next line of a grid: the field of a key. */
void ec_form_add(EcForm *form, GtkWidget *grid, const char *key);
/* The next line of a grid, with a widget of one's own; gives the label beneath that tells what is
 * wrong with it. */
GtkWidget *ec_form_add_widget(EcForm *form, GtkWidget *grid, const char *key, const char *label,
		GtkWidget *widget);
/* The tooltip of a row: its help, what is allowed, and its default. */
char *ec_form_tooltip(const EcSetting *row);
/* How a key is called on a page. */
char *ec_form_label(const char *key);

bool ec_form_has(const EcForm *form, const char *key);
void ec_form_set_sensitive(EcForm *form, const char *key, bool sensitive);
/* Marks the fields that have a problem (key -> sentence), and unmarks the others. */
void ec_form_show(EcForm *form, GHashTable *problems);
/* The same for a widget of one's own; NULL: nothing is wrong. */
void ec_form_show_problem(
		GtkWidget *widget, GtkWidget *problem, const char *key, const char *sentence);

/* The rest of the settings, in a window of its own. What the user applies is put into the items,
 * then `applied` is called. The window closes with the parent's. */
GtkWindow *ec_advanced_open(GtkWidget *parent, GHashTable *items, const char *const *elsewhere,
		void (*applied)(gpointer data), gpointer data);

/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"

/* Files of settings, as GKeyFile reads them, with errors that say the line; and files written whole
 * or not at all. */
typedef struct EcKeyfile EcKeyfile;

#define EC_KEYFILE_SUFFIX ".conf"

/* At most 256 KiB. -errno and "FILE:LINE: ..." */
int ec_keyfile_read(const char *path, EcKeyfile **ret, sd_bus_error *ret_error);
EcKeyfile *ec_keyfile_free(EcKeyfile *f);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EcKeyfile, ec_keyfile_free)
char **ec_keyfile_groups(const EcKeyfile *f); /* free with g_strfreev() */
/* Reads every key of a group over the settings. */
int ec_keyfile_parse(const EcKeyfile *f, const char *group, EcSettings *settings,
		sd_bus_error *ret_error);
/* Sets `name`, which may be in the file only as what it is anyway. */
int ec_keyfile_parse_name(const EcKeyfile *f, const char *group, EcSettings *settings,
		const char *name, sd_bus_error *ret_error);
/* Moves the error to ret_error with "FILE:LINE: " in front: the line of the key, of the group (key
 * NULL), or without a line (group NULL). Returns its -errno. */
int ec_keyfile_refuse(const EcKeyfile *f, const char *group, const char *key, sd_bus_error *error,
		sd_bus_error *ret_error);

/* Puts what is given, without secrets, in a group, and takes the rest of its settings out. */
void ec_keyfile_put(GKeyFile *f, const char *group, const EcSettings *settings);
/* Reads what is there, has put() change it, and writes it with its comments. group is there at the
 * end, too, when it is empty. Exists where something unreadable is in the way. */
int ec_keyfile_save(const char *path, void (*put)(GKeyFile *f, gconstpointer data),
		gconstpointer data, const char *group, bool durable, sd_bus_error *ret_error);
/* The names that a directory has keyfiles for, sorted. */
GPtrArray *ec_keyfiles_in(const char *directory);

/* Whole or not at all, and on the disk on return. */
int ec_file_write(const char *path, const char *text, int mode, sd_bus_error *ret_error);
/* The same in the runtime directory, where nothing outlives a power cut: nothing is waited for. */
int ec_file_write_quickly(const char *path, const char *text, sd_bus_error *ret_error);

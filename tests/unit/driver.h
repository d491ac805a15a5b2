/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <systemd/sd-event.h>

/*
 * What the drivers share: parts of the daemon in a loop of their own, told by lines what to do.
 * They answer each with a line.
 */

typedef void (*DriverRun)(char **word, guint words, void *userdata);

/* A loop; and lines leave as they are printed. */
int driver_begin(sd_event **ret);
/* Runs the loop, and each line of standard input, until that ends. */
int driver_serve(sd_event *event, DriverRun run, void *userdata);

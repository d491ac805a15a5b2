/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/* The daemon's own configuration: its command line, and CONFIG-DIR/ethercord.conf, group [daemon].
 */
typedef struct EcConfig {
	char *config_dir;      /* /etc/ethercord */
	char *state_dir;       /* /var/lib/ethercord */
	char *runtime_dir;     /* /run/ethercord */
	char *vendor_dir;      /* /usr/lib/ethercord; NULL when config_dir is not the default */
	bool foreground;       /* log to stderr, stay when idle */
	uint32_t port;         /* default control port, 1-65535 */
	uint32_t idle_timeout; /* s without tunnel and call after which the daemon exits */
	uint32_t max_tunnels;
	uint32_t profile_grace; /* s that a bound tunnel whose holder left is kept, see binding.c */
} EcConfig;

/* 0 to go on; 1 when --help or --version was answered; -EINVAL after a message on stderr. */
int ec_config_from_arguments(EcConfig *c, int argc, char **argv);
/* Reads ethercord.conf over the defaults; a missing file is fine. On failure what stood before the
 * error is in force. */
int ec_config_read(EcConfig *c, sd_bus_error *ret_error);
void ec_config_done(EcConfig *c);

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "ethercord-config.h"

static void usage(void)
{
	printf("ethercordd [OPTION...]\n\n"
	       "Carries Ethernet over the VPN you already have; see ethercordd(8).\n\n"
	       "  --config-dir DIR   configuration (" EC_CONFIG_DIR ")\n"
	       "  --state-dir DIR    keys (" EC_STATE_DIR ")\n"
	       "  --runtime-dir DIR  what must survive a crash (" EC_RUNTIME_DIR ")\n"
	       "  --foreground       log to the terminal and stay when idle\n"
	       "  --help             this text\n"
	       "  --version          the version\n\n"
	       "The bus is the system bus, or $DBUS_SYSTEM_BUS_ADDRESS.\n");
}

static void set_path(char **field, const char *path)
{
	g_free(*field);
	*field = g_canonicalize_filename(path, NULL);
}

int ec_config_from_arguments(EcConfig *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "config-dir", required_argument, NULL, 'c' },
		{ "state-dir", required_argument, NULL, 's' },
		{ "runtime-dir", required_argument, NULL, 'r' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int option;

	*c = (EcConfig){
		.config_dir = g_strdup(EC_CONFIG_DIR),
		.state_dir = g_strdup(EC_STATE_DIR),
		.runtime_dir = g_strdup(EC_RUNTIME_DIR),
		.vendor_dir = g_strdup(EC_VENDOR_DIR),
		.port = 65200,
		.idle_timeout = 30,
		.max_tunnels = 4096,
		.profile_grace = 5,
	};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			set_path(&c->config_dir, optarg);
			g_clear_pointer(&c->vendor_dir, g_free);
			break;
		case 's':
			set_path(&c->state_dir, optarg);
			break;
		case 'r':
			set_path(&c->runtime_dir, optarg);
			break;
		case 'f':
			c->foreground = true;
			break;
		case 'h':
			usage();
			return 1;
		case 'V':
			printf("ethercordd " EC_VERSION "\n");
			return 1;
		default:
			return -EINVAL;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "ethercordd: unexpected argument '%s'; try --help\n", argv[optind]);
		return -EINVAL;
	}
	return 0;
}

int ec_config_read(EcConfig *c, sd_bus_error *ret_error)
{
	const struct {
		const char *key;
		uint32_t min, max, *value;
	} row[] = {
		{ "port", 1, UINT16_MAX, &c->port },
		{ "idle-timeout", 1, 86400, &c->idle_timeout },
		{ "max-tunnels", 1, 65536, &c->max_tunnels },
		{ "profile-grace", 1, 3600, &c->profile_grace },
	};
	g_autofree char *path = g_build_filename(c->config_dir, "ethercord.conf", NULL);
	g_autoptr(GKeyFile) f = g_key_file_new();
	g_autoptr(GError) problem = NULL;

	if (!g_key_file_load_from_file(f, path, G_KEY_FILE_NONE, &problem)) {
		if (g_error_matches(problem, G_FILE_ERROR, G_FILE_ERROR_NOENT))
			return 0;
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s: %s", path,
				problem->message);
	}
	g_auto(GStrv) groups = g_key_file_get_groups(f, NULL);
	for (char **group = groups; *group; group++) {
		if (!g_str_equal(*group, "daemon"))
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"%s: group [%s]: allowed is [daemon]", path, *group);
	}
	g_auto(GStrv) keys = g_key_file_get_keys(f, "daemon", NULL, NULL);
	for (char **key = keys; key && *key; key++) {
		size_t i = 0;

		while (i < EC_ELEMENTS(row) && !g_str_equal(row[i].key, *key))
			i++;
		if (i == EC_ELEMENTS(row))
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"%s: [daemon] %s: allowed is port, idle-timeout, max-tunnels, "
					"profile-grace",
					path, *key);
		g_autofree char *text = g_key_file_get_value(f, "daemon", *key, NULL);
		guint64 value;
		if (!g_ascii_string_to_unsigned(text, 10, row[i].min, row[i].max, &value, NULL))
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"%s: [daemon] %s '%s': allowed is %u to %u", path, *key,
					text, row[i].min, row[i].max);
		*row[i].value = (uint32_t)value;
	}
	return 0;
}

void ec_config_done(EcConfig *c)
{
	g_free(c->config_dir);
	g_free(c->state_dir);
	g_free(c->runtime_dir);
	g_free(c->vendor_dir);
}

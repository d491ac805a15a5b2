/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>

/* What one tunnel is, for the writers in export-*.c. */

static const CtlExportKind kinds[] = {
	{ .name = "gretap",
			.kind4 = "gretap",
			.kind6 = "ip6gretap",
			.id = "key",
			.ethernet = true },
	{ .name = "gretap-fou",
			.kind4 = "gretap",
			.kind6 = "ip6gretap",
			.id = "key",
			.port = 65201,
			.ethernet = true,
			.fou = true },
	{ .name = "vxlan",
			.kind4 = "vxlan",
			.kind6 = "vxlan",
			.id = "id",
			.port = 4789,
			.ethernet = true,
			.vxlan = true },
	{ .name = "gre", .kind4 = "gre", .kind6 = "ip6gre", .id = "key" },
	{ .name = "ipip", .kind4 = "ipip", .kind6 = "ip6tnl" },
	{ .name = "raw-udp", .port = 1234, .ethernet = true },
	{ .name = "tun-udp", .port = 8000 },
};

static const struct {
	const char *name;
	bool needs_kernel;
	int (*write)(const CtlExport *e);
} formats[] = {
	{ "ip", true, ctl_export_ip },
	{ "nmcli", true, ctl_export_nmcli },
	{ "networkd", true, ctl_export_networkd },
	{ "keyfile", false, ctl_export_keyfile },
};

/* What came over the bus is checked like what a person types, so it needs no quoting later. */
static int read_settings(const json_t *tunnel, EcSettings *s, sd_bus_error *ret_error)
{
	const char *key;
	json_t *value;

	json_object_foreach(json_object_get(tunnel, "Settings"), key, value)
	{
		g_autofree char *text = ctl_json_text(value);
		int r = ec_settings_parse(s, key, text, ret_error);

		if (r < 0)
			return r;
	}
	return ec_settings_parse(s, "name", ctl_json_string(tunnel, "Name"), ret_error);
}

/* Puts what the daemon has settled over what was given. */
static int settle(const json_t *tunnel, EcSettings *s, sd_bus_error *ret_error)
{
	static const char *const pairs[][2] = {
		{ "Interface", "interface" },
		{ "Bridge", "bridge" },
		{ "Encapsulation", "encapsulation" },
		{ "Local", "local" },
		{ "Remote", "remote" },
		{ "Id", "id" },
		{ "Mtu", "mtu" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(pairs); i++) {
		const json_t *value = json_object_get(tunnel, pairs[i][0]);
		g_autofree char *text = value ? ctl_json_text(value) : NULL;

		if (!text || !*text || g_str_equal(text, "0"))
			continue;
		int r = ec_settings_parse(s, pairs[i][1], text, ret_error);
		if (r < 0)
			return r;
	}
	return 0;
}

static const CtlExportKind *find_kind(const EcSettings *s)
{
	for (size_t i = 0; s->encapsulation && i < EC_ELEMENTS(kinds); i++) {
		if (g_str_equal(kinds[i].name, s->encapsulation[0]))
			return &kinds[i];
	}
	return NULL;
}

/* "" when it is a host name or not known yet. */
static char *address_of(const char *text)
{
	EcAddress a;

	return g_strdup(text && ec_address_from_string(text, &a) == 0 ? text : "");
}

static int mirror(CtlExport *e)
{
	EcSettings *s = e->settings;
	g_autofree char *local = g_strdup(s->local);
	g_autofree char *remote = g_strdup(s->remote[0]);
	uint16_t port = s->data_port;
	int r = ec_settings_parse(s, "remote", local, NULL);

	if (r >= 0)
		r = ec_settings_parse(s, "local", remote, NULL);
	/* The far end's own affair. */
	static const char *const its_own[] = { "address", "mac", "attach", "fwmark", "identity" };
	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(its_own); i++)
		r = ec_settings_parse(s, its_own[i], "", NULL);
	s->data_port = s->remote_data_port;
	s->remote_data_port = port;
	e->device = NULL;
	return r;
}

static void settle_ports(CtlExport *e)
{
	EcSettings *s = e->settings;

	if (!s->data_port)
		s->data_port = e->kind->port;
	if (!s->remote_data_port)
		s->remote_data_port = e->kind->vxlan ? s->data_port : e->kind->port;
}

static void settle_frames(CtlExport *e)
{
	const EcSettings *s = e->settings;

	e->fragment = !e->ipv6 &&
		      (s->full_frames == EC_FULL_FRAMES_YES ||
				      (s->full_frames == EC_FULL_FRAMES_AUTO &&
						      s->mode != EC_MODE_POINT_TO_POINT));
	e->mtu = s->mtu ? s->mtu : e->fragment && e->kind->ethernet ? 1500 : 0;
	/* A VXLAN bound to a device cannot have a larger MTU than that allows. */
	if (e->kind->vxlan && e->fragment)
		e->device = NULL;
}

static void find_device(CtlExport *e, const json_t *tunnel, const json_t *objects)
{
	const json_t *u = json_object_get(
			json_object_get(objects, ctl_json_string(tunnel, "Underlay")),
			CTL_UNDERLAY);
	const char *device = ctl_json_string(u, "Interface");

	if (g_str_has_prefix(e->settings->underlay, "device:"))
		e->device = e->settings->underlay + strlen("device:");
	else if (!g_str_equal(e->settings->underlay, "any") && ec_ifname_is_valid(device))
		e->device = device;
}

/* Complains and returns an exit code. */
static int build(CtlExport *e, const json_t *tunnel, const json_t *objects)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSettings *s = e->settings;
	int r = settle(tunnel, s, &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	e->kind = find_kind(s);
	if (!e->kind)
		return ctl_complain(CTL_ERROR,
				"the encapsulation of %s is not settled yet; bring it up, or set "
				"encapsulation=",
				s->name);
	g_autofree char *remote = address_of(s->remote ? s->remote[0] : NULL);
	if (!*remote)
		return ctl_complain(CTL_ERROR,
				"the address of %s's peer is not known yet; bring it up", s->name);
	if (e->peer && !s->local)
		return ctl_complain(CTL_ERROR,
				"this end's address is not known yet; bring %s up, or set local=",
				s->name);
	e->ipv6 = strchr(remote, ':');
	settle_ports(e);
	find_device(e, tunnel, objects);
	settle_frames(e);
	r = e->peer ? mirror(e) : 0;
	return r < 0 ? ctl_fail(NULL, r, NULL, CTL_ERROR) : CTL_OK;
}

static int export(Ctl *ctl, const char *name, const json_t *tunnel, const json_t *objects,
		size_t format)
{
	g_autoptr(EcSettings) given = ec_settings_new();
	g_autoptr(EcSettings) settings = NULL;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	CtlExport e = { .given = given, .peer = ctl->peer };
	int r = read_settings(tunnel, given, &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	e.settings = settings = ec_settings_copy(given);
	if (!ctl->peer && !formats[format].needs_kernel)
		return formats[format].write(&e);
	int code = build(&e, tunnel, objects);
	if (code != CTL_OK)
		return code;
	if (formats[format].needs_kernel && !e.kind->kind4)
		return ctl_complain(CTL_ERROR,
				"%s carries %s, which a program makes and not the kernel; --as=%s "
				"cannot express it",
				name, e.kind->name, formats[format].name);
	return formats[format].write(&e);
}

int ctl_verb_export(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *path = ctl_tunnel_path(argv[1]);
	g_autoptr(json_t) objects = NULL;
	size_t format = 0;

	while (format < EC_ELEMENTS(formats) && g_strcmp0(formats[format].name, ctl->as) != 0)
		format++;
	if (format == EC_ELEMENTS(formats))
		return ctl_complain(CTL_USAGE,
				"--as '%s': allowed is ip, nmcli, networkd or keyfile",
				ctl->as ? ctl->as : "");
	int code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	int r = ctl_get_objects(ctl, true, &objects, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	const json_t *tunnel = json_object_get(json_object_get(objects, path), CTL_TUNNEL);
	if (!tunnel)
		return ctl_complain(CTL_NOT_FOUND, "there is no tunnel '%s'", argv[1]);
	return export(ctl, argv[1], tunnel, objects, format);
}

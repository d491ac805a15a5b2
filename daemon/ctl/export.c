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
			.overhead = 18,
			.ethernet = true,
			.fragments = true },
	{ .name = "gretap-fou",
			.kind4 = "gretap",
			.kind6 = "ip6gretap",
			.id = "key",
			.port = 65201,
			.overhead = 30,
			.ethernet = true,
			.fragments = true,
			.fou = true },
	{ .name = "vxlan",
			.kind4 = "vxlan",
			.kind6 = "vxlan",
			.id = "id",
			.port = 4789,
			.overhead = 30,
			.ethernet = true,
			.fragments = true,
			.vxlan = true },
	{ .name = "gre",
			.kind4 = "gre",
			.kind6 = "ip6gre",
			.id = "key",
			.overhead = 4,
			.fragments = true },
	{ .name = "ipip", .kind4 = "ipip", .kind6 = "ip6tnl" },
	/* A process carries these. */
	{ .name = "raw-udp",
			.port = 1234,
			.overhead = 22,
			.ethernet = true,
			.fragments = true,
			.programs = "tap2tap or QuickTun" },
	{ .name = "tun-udp", .port = 8000, .overhead = 8, .fragments = true, .programs = "ttun" },
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
	const json_t *given = json_object_get(tunnel, "Settings");

	for (CtlMember m = ctl_json_first(given); m.key; m = ctl_json_next(given, m)) {
		g_autofree char *text = ctl_json_text(m.value);
		int r = ec_settings_parse(s, m.key, text, ret_error);

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

static int mirror(CtlExport *e, const char *remote_text)
{
	/* The far end's own affair. */
	static const char *const its_own[] = { "address", "mac", "attach", "fwmark", "identity" };
	EcSettings *s = e->settings;
	g_autofree char *local = g_strdup(s->local);
	g_autofree char *remote = g_strdup(remote_text);
	uint16_t port = s->data_port;
	int r = ec_settings_parse(s, "remote", local, NULL);

	if (r >= 0)
		r = ec_settings_parse(s, "local", remote, NULL);
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
	uint16_t local = s->data_port, remote = s->remote_data_port;

	if (e->kind->vxlan) { /* one port in both directions */
		local = local ? local : remote;
		remote = local;
	}
	s->data_port = local ? local : e->kind->port;
	s->remote_data_port = remote ? remote : e->kind->port;
}

/* As the daemon decides it: bridged ends always fragment what the path does not carry, others when
 * asked to, with full-frames or with a larger MTU. */
static void settle_frames(CtlExport *e, json_int_t path_mtu)
{
	const EcSettings *s = e->settings;
	unsigned overhead =
			20 + e->kind->overhead + (e->kind->id && !e->kind->vxlan && s->id ? 4 : 0);
	bool larger = ec_settings_is_given(e->given, ec_setting_find("mtu")) &&
		      (json_int_t)s->mtu + overhead > (path_mtu ? path_mtu : 1500);

	e->fragment = !e->ipv6 && e->kind->fragments && s->full_frames != EC_FULL_FRAMES_NO &&
		      (s->full_frames == EC_FULL_FRAMES_YES || s->mode != EC_MODE_POINT_TO_POINT ||
				      larger);
	e->mtu = s->mtu ? s->mtu : e->fragment && e->kind->ethernet ? 1500 : 0;
}

static void find_device(CtlExport *e, const json_t *underlay)
{
	const char *setting = e->settings->underlay;
	const char *device = ctl_json_string(underlay, "Interface");

	if (e->kind->vxlan)
		return; /* never bound: the kernel would cap its MTU, and delete it with the device
			 */
	if (g_str_has_prefix(setting, "device:"))
		e->device = setting + strlen("device:");
	else if (!g_str_equal(setting, "any") && ec_ifname_is_valid(device))
		e->device = device;
}

/* Complains and returns an exit code. */
static int build(CtlExport *e, const json_t *tunnel, const json_t *objects)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSettings *s = e->settings;
	EcAddress address;
	int r = settle(tunnel, s, &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	e->kind = find_kind(s);
	if (!e->kind)
		return ctl_complain(CTL_ERROR,
				"the encapsulation of %s is not settled yet; bring it up, or set "
				"encapsulation=",
				s->name);
	const char *remote = s->remote ? s->remote[0] : "";
	if (ec_address_from_string(remote, &address) < 0)
		return ctl_complain(CTL_ERROR,
				"the address of %s's peer is not known yet; bring it up", s->name);
	if (e->peer && !s->local)
		return ctl_complain(CTL_ERROR,
				"this end's address is not known yet; bring %s up, or set local=",
				s->name);
	const json_t *underlay = json_object_get(
			json_object_get(objects, ctl_json_string(tunnel, "Underlay")),
			CTL_UNDERLAY);
	e->ipv6 = address.family == AF_INET6;
	settle_ports(e);
	find_device(e, underlay);
	settle_frames(e, ctl_json_integer(underlay, "Mtu"));
	r = e->peer ? mirror(e, remote) : 0;
	return r < 0 ? ctl_fail(NULL, r, NULL, CTL_ERROR) : CTL_OK;
}

/* Whether a link of the kernel's can take the tunnel's place at that end. */
static int check_kernel(const CtlExport *e, const char *name, const char *format)
{
	if (!e->kind->kind4)
		return ctl_complain(CTL_ERROR,
				"%s is %s, which no link of the kernel's does but a process "
				"(data-plane=user): --as=%s cannot express it; --as=keyfile%s can, "
				"and the far end may also run %s",
				name, e->kind->name, format, e->peer ? " --peer" : "",
				e->kind->programs);
	if (e->settings->split == EC_SPLIT_YES)
		return ctl_complain(CTL_ERROR,
				"%s has split=yes: no link of the kernel's puts frames together that "
				"come in pieces, so --as=%s cannot express it; --as=keyfile%s can",
				name, format, e->peer ? " --peer" : "");
	return CTL_OK;
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
	settings = ec_settings_copy(given);
	e.settings = settings;
	if (!ctl->peer && !formats[format].needs_kernel)
		return formats[format].write(&e);
	int code = build(&e, tunnel, objects);
	if (code != CTL_OK)
		return code;
	g_assert(e.kind);
	code = formats[format].needs_kernel ? check_kernel(&e, name, formats[format].name) : CTL_OK;
	return code == CTL_OK ? formats[format].write(&e) : code;
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
	if (!tunnel && ctl_is_listener(ctl, argv[1]))
		return ctl_complain(CTL_ERROR,
				"%s is a listener; no other program can be told of one, only of the "
				"tunnels of its peers",
				argv[1]);
	if (!tunnel)
		return ctl_complain(CTL_NOT_FOUND, "there is no tunnel '%s'", argv[1]);
	return export(ctl, argv[1], tunnel, objects, format);
}

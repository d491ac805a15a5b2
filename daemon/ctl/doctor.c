/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

/*
 * The verb doctor. The daemon knows what is wrong and what to do (Manager.Diagnose); here its
 * findings become something to read, or with --report a text for a bug report.
 */

typedef struct Doctor {
	Ctl *ctl;
	json_t *objects;  /* all of the daemon's */
	json_t *manager;  /* properties */
	json_t *findings; /* as shown, in order; those about a tunnel have "tunnel", too */
	bool error;       /* one of them is */
} Doctor;

/* Asking */

/* Appends findings; tunnel, remote: NULL for none. */
static int ask(Doctor *d, const char *remote, const char *tunnel)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(sd_bus_message) reply = NULL;
	g_autoptr(json_t) found = NULL;
	int r = tunnel ? sd_bus_call_method(d->ctl->bus, CTL_BUS_NAME, CTL_ROOT_PATH, CTL_MANAGER,
					 "Diagnose", &error, &reply, "sa{sv}", "", 1, "tunnel", "s",
					 tunnel)
		       : sd_bus_call_method(d->ctl->bus, CTL_BUS_NAME, CTL_ROOT_PATH, CTL_MANAGER,
					 "Diagnose", &error, &reply, "sa{sv}", remote ? remote : "",
					 0);

	if (r >= 0)
		r = ctl_json_read(reply, &found);
	if (r < 0)
		return ctl_fail(&error, r, tunnel, CTL_ERROR);
	for (size_t i = 0; i < json_array_size(found); i++) {
		json_t *f = json_array_get(found, i);

		if (tunnel)
			(void)json_object_set_new(f, "tunnel", json_string(tunnel));
		if (remote)
			(void)json_object_set_new(f, "remote", json_string(remote));
		d->error |= g_str_equal(ctl_json_string(f, "severity"), "error");
		(void)json_array_append(d->findings, f);
	}
	return CTL_OK;
}

static bool is_address(const char *text)
{
	struct in6_addr a;

	return inet_pton(AF_INET, text, &a) == 1 || inet_pton(AF_INET6, text, &a) == 1;
}

/* Whether a tunnel's setting names this host. */
static bool is_remote(const json_t *tunnels, const char *text)
{
	for (size_t i = 0; i < json_array_size(tunnels); i++) {
		const json_t *settings = json_object_get(json_array_get(tunnels, i), "Settings");
		const json_t *remotes = json_object_get(settings, "remote");

		for (size_t n = 0; n < json_array_size(remotes); n++) {
			if (g_strcmp0(json_string_value(json_array_get(remotes, n)), text) == 0)
				return true;
		}
	}
	return false;
}

/* The machine first, then what was named: a tunnel, an address, or every tunnel. */
static int examine(Doctor *d, const char *what)
{
	g_autoptr(json_t) tunnels = ctl_pick(d->objects, CTL_TUNNEL);
	bool is_tunnel = false;

	for (size_t i = 0; what && i < json_array_size(tunnels); i++)
		is_tunnel |= g_str_equal(ctl_json_string(json_array_get(tunnels, i), "Name"), what);
	if (what && !is_tunnel && ctl_is_listener(d->ctl, what))
		return ctl_complain(CTL_USAGE,
				"%s is a listener; name the tunnel of one of its peers, or an address",
				what);
	/* A host name has a dot, or is known from a tunnel; the rest can only be a tunnel. */
	if (what && !is_tunnel && !is_address(what) && !strchr(what, '.') &&
			!is_remote(tunnels, what))
		return ctl_complain(CTL_NOT_FOUND, "there is no tunnel '%s'", what);
	int code = ask(d, NULL, NULL);
	if (code != CTL_OK)
		return code;
	if (what)
		return is_tunnel ? ask(d, NULL, what) : ask(d, what, NULL);
	for (size_t i = 0; code == CTL_OK && i < json_array_size(tunnels); i++)
		code = ask(d, NULL, ctl_json_string(json_array_get(tunnels, i), "Name"));
	/* One that was removed meanwhile is no news. */
	return code == CTL_NOT_FOUND ? CTL_OK : code;
}

/* Privacy */

static bool is_public4(struct in_addr a)
{
	static const struct {
		uint32_t network, mask;
	} own[] = {
		{ 0x0a000000, 0xff000000 }, /* RFC 1918 */
		{ 0xac100000, 0xfff00000 }, { 0xc0a80000, 0xffff0000 },
		{ 0x64400000, 0xffc00000 }, /* RFC 6598 */
		{ 0xa9fe0000, 0xffff0000 }, /* link local */
		{ 0x7f000000, 0xff000000 }, { 0x00000000, 0xff000000 },
		{ 0xe0000000, 0xe0000000 }, /* multicast and above */
	};
	uint32_t address = ntohl(a.s_addr);

	for (size_t i = 0; i < EC_ELEMENTS(own); i++) {
		if ((address & own[i].mask) == own[i].network)
			return false;
	}
	return true;
}

/* Global unicast (RFC 4291) is what begins with 001. */
static bool is_public(const char *text)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, text, &v4) == 1)
		return is_public4(v4);
	return inet_pton(AF_INET6, text, &v6) == 1 && (v6.s6_addr[0] & 0xe0) == 0x20;
}

/* A report goes to the public: addresses that lead to somebody's door are left out. */
static char *hide_public(const char *text)
{
	static const char part[] = "0123456789abcdefABCDEF:.";
	g_autoptr(GString) out = g_string_new(NULL);

	while (*text) {
		size_t other = strcspn(text, part), length;

		g_string_append_len(out, text, (gssize)other);
		text += other;
		length = strspn(text, part);
		if (length == 0)
			continue;
		/* "203.0.113.1:51820", and the end of a sentence */
		const char *colon = memchr(text, ':', length);
		bool port = colon && memchr(text, '.', (size_t)(colon - text));
		size_t n = port ? (size_t)(colon - text) : length;
		while (n > 0 && !port && (text[n - 1] == '.' || text[n - 1] == ':') &&
				!(n > 1 && text[n - 2] == ':'))
			n--;
		g_autofree char *word = g_strndup(text, n);
		g_string_append(out, is_public(word) ? "(public address)" : word);
		g_string_append_len(out, text + n, (gssize)(length - n));
		text += length;
	}
	return g_string_free(g_steal_pointer(&out), FALSE);
}

/* Showing */

/* Text in lines that fit, all but the first one indented. */
static void print_wrapped(const char *text, size_t indent)
{
	size_t width = MAX(ctl_terminal_width(), indent + 30), column = indent;
	g_auto(GStrv) words = g_strsplit(text, " ", -1);

	for (char **w = words; *w; w++) {
		size_t length = (size_t)g_utf8_strlen(*w, -1);

		if (w > words && column + 1 + length > width) {
			(void)printf("\n%*s", (int)indent, "");
			column = indent;
		} else if (w > words) {
			(void)fputc(' ', stdout);
			column++;
		}
		(void)fputs(*w, stdout);
		column += length;
	}
	(void)fputc('\n', stdout);
}

static void show_finding(const json_t *f)
{
	const char *severity = ctl_json_string(f, "severity");
	g_autofree char *text = ctl_clean(ctl_json_string(f, "text"));
	g_autofree char *remedy = ctl_clean(ctl_json_string(f, "remedy"));

	(void)printf("%s%-8s%s ", ctl_color_of(severity), severity, ctl_color_off());
	print_wrapped(text, 9);
	if (!*remedy)
		return;
	(void)printf("%9s%s ", "", ctl_is_utf8() ? "→" : ">");
	print_wrapped(remedy, 11);
}

static void show_findings(const json_t *findings)
{
	const char *before = NULL;

	for (size_t i = 0; i < json_array_size(findings); i++) {
		const json_t *f = json_array_get(findings, i);
		const char *tunnel = ctl_json_string(f, "tunnel");
		const char *about = *tunnel ? tunnel : ctl_json_string(f, "remote");

		if (g_strcmp0(about, before) != 0) {
			g_autofree char *clean = ctl_clean(about);

			(void)printf("%s%s%s:\n", i ? "\n" : "", *tunnel ? "tunnel " : "",
					*clean ? clean : "this machine");
		}
		before = about;
		show_finding(f);
	}
}

/* Report */

/* The tool that people look at the fence with; the daemon has its own library. */
static char *nft_version(void)
{
	g_autofree char *found = g_find_program_in_path("nft"), *out = NULL;
	char *argv[] = { found ? found : (char *)"/usr/sbin/nft", (char *)"--version", NULL };

	if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
			    NULL, NULL))
		return g_strdup("nft is not installed");
	return g_strdup(g_strstrip(out));
}

/* Everything, without public addresses; NULL only where there is no memory. */
static json_t *make_report(const Doctor *d)
{
	g_autofree char *nft = nft_version();
	struct utsname u = { 0 };

	(void)uname(&u);
	g_autofree char *kernel = g_strdup_printf("%s %s %s", u.sysname, u.release, u.machine);
	g_autoptr(json_t) all = json_pack("{s:s, s:s, s:s, s:O, s:o, s:o, s:o, s:O}", "Client",
			EC_VERSION, "Kernel", kernel, "Nftables", nft, "Manager", d->manager,
			"Underlays", ctl_pick(d->objects, CTL_UNDERLAY), "Tunnels",
			ctl_pick(d->objects, CTL_TUNNEL), "Listeners",
			ctl_pick(d->objects, CTL_LISTENER), "Findings", d->findings);
	g_autofree char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
	g_autofree char *hidden = hide_public(text ? text : "");
	return json_loads(hidden, 0, NULL);
}

static void show_objects(const char *what, const json_t *objects)
{
	for (size_t i = 0; i < json_array_size(objects); i++) {
		const json_t *o = json_array_get(objects, i);
		g_autofree char *name = ctl_clean(ctl_json_string(o, "Name"));

		(void)printf("\n%s %s:\n", what, name);
		for (CtlMember m = ctl_json_first(o); m.key; m = ctl_json_next(o, m)) {
			g_autofree char *text = ctl_json_text(m.value);
			g_autofree char *clean = ctl_clean(text);

			if (*clean && !g_str_equal(m.key, "Name"))
				(void)printf("  %s: %s\n", m.key, clean);
		}
	}
}

static void show_report(const json_t *report)
{
	const json_t *manager = json_object_get(report, "Manager");
	g_autofree char *made = ctl_json_text(json_object_get(manager, "Encapsulations"));

	(void)printf("ethercordctl %s, ethercordd %s\n%s\n%s\nencapsulations: %s\n",
			ctl_json_string(report, "Client"), ctl_json_string(manager, "Version"),
			ctl_json_string(report, "Kernel"), ctl_json_string(report, "Nftables"),
			made);
	show_objects("underlay", json_object_get(report, "Underlays"));
	show_objects("tunnel", json_object_get(report, "Tunnels"));
	show_objects("listener", json_object_get(report, "Listeners"));
	(void)fputc('\n', stdout);
}

/* Verb */

static void doctor_done(Doctor *d)
{
	json_decref(d->objects);
	json_decref(d->manager);
	json_decref(d->findings);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Doctor, doctor_done)

static void show(Doctor *d)
{
	g_autoptr(json_t) report = d->ctl->report ? make_report(d) : NULL;

	if (d->ctl->json != CTL_JSON_OFF) {
		ctl_json_print(d->ctl, report ? report : d->findings);
		return;
	}
	if (report)
		show_report(report);
	show_findings(report ? json_object_get(report, "Findings") : d->findings);
}

int ctl_verb_doctor(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_auto(Doctor) d = { .ctl = ctl, .findings = json_array() };
	int code = ctl_open(ctl);

	if (code != CTL_OK)
		return code;
	int r = ctl_get_objects(ctl, true, &d.objects, &error);
	if (r >= 0)
		r = ctl_get_properties(ctl, CTL_ROOT_PATH, CTL_MANAGER, &d.manager, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	code = examine(&d, argc > 1 ? argv[1] : NULL);
	if (code != CTL_OK)
		return code;
	show(&d);
	return d.error ? CTL_ERROR : CTL_OK;
}

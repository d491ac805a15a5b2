/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>

typedef struct Fake {
	EcUnderlay u;
	sd_event_source *source;
} Fake;

static bool serves(const char *setting)
{
	return g_str_equal(setting, "wireguard");
}

static void look(EcUnderlay *u)
{
	const char *path = g_getenv("ETHERCORD_FAKE_UNDERLAY");
	g_autofree char *text = NULL;
	char device[IF_NAMESIZE] = "";
	unsigned mtu = 0;

	u->up = path && g_file_get_contents(path, &text, NULL, NULL) &&
		sscanf(text, "%15s %u", device, &mtu) == 2;
	u->protect = u->up;
	u->mtu = u->up ? mtu : 0;
	g_strlcpy(u->device, u->up ? device : "", sizeof(u->device));
}

static int on_file(sd_event_source *s, const struct inotify_event *event, void *userdata)
{
	look(userdata);
	ec_underlay_report(userdata);
	return 0;
}

static int watch(EcUnderlay *u, sd_bus_error *ret_error)
{
	Fake *fake = (Fake *)u;
	const char *path = g_getenv("ETHERCORD_FAKE_UNDERLAY");
	g_autofree char *dir = path ? g_path_get_dirname(path) : NULL;

	look(u);
	return dir ? sd_event_add_inotify(u->host.event, &fake->source, dir,
				     IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE, on_file, u)
		   : 0;
}

static int path(EcUnderlay *u, const EcFlow *flow, EcPath *ret, sd_bus_error *ret_why)
{
	g_auto(EcLink) link = { 0 };

	if (!u->up || ec_kernel_link_by_name(u->host.kernel, u->device, &link, NULL) <= 0) {
		(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY, "the fake VPN is down");
		return 0;
	}
	ret->local = flow->local;
	ret->ifindex = link.ifindex;
	g_strlcpy(ret->device, u->device, sizeof(ret->device));
	ret->bind = true;
	ret->protect = true;
	ret->mtu = u->mtu;
	return 1;
}

static void done(EcUnderlay *u)
{
	(void)sd_event_source_disable_unref(((Fake *)u)->source);
}

const EcUnderlayKind ec_underlay_fake = {
	.name = "fake",
	.size = sizeof(Fake),
	.serves = serves,
	.watch = watch,
	.path = path,
	.done = done,
};

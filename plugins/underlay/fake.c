/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>

typedef struct Fake {
	EcSource s;
	sd_event_source *source;
} Fake;

/* What the file says: 1 and the device with its MTU, or 0. */
static int read_file(char device[static IF_NAMESIZE], unsigned *mtu)
{
	const char *path = g_getenv("ETHERCORD_FAKE_UNDERLAY");
	g_autofree char *text = NULL;

	return path && g_file_get_contents(path, &text, NULL, NULL) &&
	       sscanf(text, "%15s %u", device, mtu) == 2;
}

static int on_file(sd_event_source *s, const struct inotify_event *event, void *userdata)
{
	ec_underlay_report(userdata);
	return 0;
}

static int watch(EcSource *s, sd_bus_error *ret_error)
{
	const char *path = g_getenv("ETHERCORD_FAKE_UNDERLAY");
	g_autofree char *dir = path ? g_path_get_dirname(path) : NULL;

	return dir ? sd_event_add_inotify(s->event, &((Fake *)s)->source, dir,
				     IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE, on_file, s)
		   : 0;
}

static void done(EcSource *s)
{
	(void)sd_event_source_disable_unref(((Fake *)s)->source);
}

static bool recognise(EcSource *s, const EcLink *link, EcLook *look)
{
	char device[IF_NAMESIZE] = "";
	unsigned mtu = 0;
	bool up = read_file(device, &mtu);

	/* A device that the file ever named stays a VPN, up or down: its alias says so. */
	if (!(up && g_str_equal(device, link->name)) && !g_str_equal(link->alias, "fake VPN"))
		return false;
	g_snprintf(look->title, sizeof(look->title), "the fake VPN on %s", link->name);
	look->up = up;
	look->protect = true;
	look->mtu = up ? mtu : 0;
	return true;
}

const EcUnderlayKind ec_underlay_fake = {
	.name = "wireguard",
	.size = sizeof(Fake),
	.watch = watch,
	.done = done,
	.recognise = recognise,
};

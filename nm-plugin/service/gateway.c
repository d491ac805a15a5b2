/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <errno.h>
#include <string.h>

/*
 * DOC: Theory of operation
 *
 * Config has to name a gateway, and NetworkManager makes a host route to it through the device that
 * it takes the connection to ride on. With the far end as gateway, of a tunnel inside another VPN,
 * that route would lead around the VPN: the packets would leave in clear. So the far end is named
 * only where the tunnel is not inside a VPN and its packets leave by that very device; there the
 * route keeps them from running into the tunnel itself when the tunnel becomes the default route.
 * Everywhere else it is the broadcast address, to which NetworkManager makes no route.
 */

static void finish(EcSvcGateway *g)
{
	ec_svc_call_done(&g->call);
	ec_svc_on_gateway(g->service);
}

static int on_under(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = {
		{ "Interface", "s", offsetof(EcSvcGateway, under) },
		{ NULL },
	};
	EcSvcGateway *g = userdata;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, g);
	finish(g);
	return 0;
}

static int on_base(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = {
		{ "IpInterface", "s", offsetof(EcSvcGateway, base) },
		{ NULL },
	};
	EcSvcGateway *g = userdata;

	if (sd_bus_message_is_method_error(reply, NULL) ||
			ec_svc_read_properties(reply, table, g) < 0)
		finish(g);
	else
		ec_svc_call_get_all(&g->call, EC_SVC_DAEMON, g->service->cord.underlay,
				EC_SVC_UNDERLAY, on_under, g);
	return 0;
}

static int on_active(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = {
		{ "Devices", "ao", 0 },
		{ NULL },
	};
	EcSvcGateway *g = userdata;
	char **devices = NULL;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &devices);
	if (devices && devices[0])
		ec_svc_call_get_all(&g->call, EC_SVC_NM, devices[0], EC_SVC_NM_DEVICE, on_base, g);
	else
		finish(g);
	g_strfreev(devices);
	return 0;
}

void ec_svc_gateway_start(EcSvcGateway *g, EcService *s)
{
	const char *underlay = s->cord.underlay;

	ec_svc_gateway_done(g);
	g->service = s;
	g->call.bus = s->bus;
	if (s->active && !s->cord.protect && underlay && !g_str_equal(underlay, "/"))
		ec_svc_call_get_all(&g->call, EC_SVC_NM, s->active, EC_SVC_NM_ACTIVE, on_active, g);
	else
		ec_svc_on_gateway(s);
}

int ec_svc_gateway_append(const EcSvcGateway *g, sd_bus_message *m)
{
	const EcSvcCord *cord = &g->service->cord;
	EcAddress remote = { .family = AF_INET, .v4 = { INADDR_BROADCAST } };

	if (g->base && g->under && g_str_equal(g->base, g->under) && cord->remote)
		(void)ec_address_from_string(cord->remote, &remote);
	if (remote.family == AF_INET)
		return sd_bus_message_append(m, "v", "u", remote.v4.s_addr);
	int r = sd_bus_message_open_container(m, 'v', "ay");
	if (r >= 0)
		r = sd_bus_message_append_array(m, 'y', remote.bytes, ec_address_size(&remote));
	return r < 0 ? r : sd_bus_message_close_container(m);
}

void ec_svc_gateway_done(EcSvcGateway *g)
{
	ec_svc_call_done(&g->call);
	g_free(g->base);
	g_free(g->under);
	*g = (EcSvcGateway){ 0 };
}

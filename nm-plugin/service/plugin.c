/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "svc.h"

/*
 * The object that NetworkManager calls: org.freedesktop.NetworkManager.VPN.Plugin. It waits for an
 * answer only a few seconds, so every method answers at once, and signals tell the rest.
 */

#define PLUGIN_PATH EC_SVC_NM_PATH "/VPN/Plugin"
#define PLUGIN EC_SVC_NM ".VPN.Plugin"
#define PLUGIN_ERROR EC_SVC_NM ".VPN.Error."

static int connect_by(sd_bus_message *m, EcService *s, bool interactive)
{
	g_auto(sd_bus_error) broken = SD_BUS_ERROR_NULL;
	EcSvcConnection *c;

	if (s->phase != EC_SVC_PHASE_IDLE)
		return sd_bus_reply_method_errorf(
				m, PLUGIN_ERROR "AlreadyStarted", "this activation is under way");
	int r = ec_svc_connection_read(m, &c, &broken);
	if (r < 0 && !sd_bus_error_is_set(&broken)) {
		(void)ec_svc_connection_free(c);
		return r;
	}
	r = sd_bus_reply_method_return(m, NULL);
	ec_svc_connect(s, c, sd_bus_error_is_set(&broken) ? &broken : NULL, interactive);
	return r;
}

static int method_connect(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	return connect_by(m, userdata, false);
}

/* The second argument, of which NetworkManager says nothing, is left alone. */
static int method_connect_interactive(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	return connect_by(m, userdata, true);
}

static int method_need_secrets(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) broken = SD_BUS_ERROR_NULL;
	EcSvcConnection *c;
	/* What is wrong with it Connect tells. */
	int r = ec_svc_connection_read(m, &c, &broken);
	bool needed = r >= 0 && ec_svc_connection_needs_key(c);

	(void)ec_svc_connection_free(c);
	return sd_bus_reply_method_return(m, "s", needed ? "vpn" : "");
}

static int method_new_secrets(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) broken = SD_BUS_ERROR_NULL;
	EcSvcConnection *c;
	int r = ec_svc_connection_read(m, &c, &broken);

	if (r < 0 && !sd_bus_error_is_set(&broken)) {
		(void)ec_svc_connection_free(c);
		return r;
	}
	r = sd_bus_reply_method_return(m, NULL);
	ec_svc_new_key(userdata, c, sd_bus_error_is_set(&broken) ? &broken : NULL);
	return r;
}

static int method_disconnect(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	int r = sd_bus_reply_method_return(m, NULL);

	ec_svc_disconnect(userdata);
	return r;
}

static int get_state(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcState state[] = {
		[EC_SVC_PHASE_IDLE] = EC_SVC_STATE_INIT,
		[EC_SVC_PHASE_BRIDGE] = EC_SVC_STATE_STARTING,
		[EC_SVC_PHASE_CORD] = EC_SVC_STATE_STARTING,
		[EC_SVC_PHASE_PORT] = EC_SVC_STATE_STARTING,
		[EC_SVC_PHASE_GATEWAY] = EC_SVC_STATE_STARTING,
		[EC_SVC_PHASE_STARTED] = EC_SVC_STATE_STARTED,
		[EC_SVC_PHASE_SECRETS] = EC_SVC_STATE_STARTING,
		[EC_SVC_PHASE_STOPPED] = EC_SVC_STATE_STOPPED,
	};
	const EcService *s = userdata;

	static_assert(EC_ELEMENTS(state) == _SVC_PHASE_MAX, "a state per phase");
	return sd_bus_message_append(reply, "u", (uint32_t)state[s->phase]);
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Connect", "a{sa{sv}}", "", method_connect, 0),
	SD_BUS_METHOD("ConnectInteractive", "a{sa{sv}}a{sv}", "", method_connect_interactive, 0),
	SD_BUS_METHOD("NeedSecrets", "a{sa{sv}}", "s", method_need_secrets, 0),
	SD_BUS_METHOD("NewSecrets", "a{sa{sv}}", "", method_new_secrets, 0),
	SD_BUS_METHOD("Disconnect", "", "", method_disconnect, 0),
	SD_BUS_PROPERTY("State", "u", get_state, 0, 0),
	SD_BUS_SIGNAL("StateChanged", "u", 0),
	SD_BUS_SIGNAL("SecretsRequired", "sas", 0),
	SD_BUS_SIGNAL("Config", "a{sv}", 0),
	SD_BUS_SIGNAL("Failure", "u", 0),
	SD_BUS_VTABLE_END,
};

void ec_svc_plugin_state(EcService *s, EcSvcState state)
{
	(void)sd_bus_emit_signal(s->bus, PLUGIN_PATH, PLUGIN, "StateChanged", "u", (uint32_t)state);
}

void ec_svc_plugin_failure(EcService *s, EcSvcFailure code)
{
	(void)sd_bus_emit_signal(s->bus, PLUGIN_PATH, PLUGIN, "Failure", "u", (uint32_t)code);
}

void ec_svc_plugin_secrets(EcService *s, const char *sentence)
{
	(void)sd_bus_emit_signal(
			s->bus, PLUGIN_PATH, PLUGIN, "SecretsRequired", "sas", sentence, 1, "key");
}

/* The addresses are the profile's own, or the port profile's: there are none in here. */
void ec_svc_plugin_config(EcService *s, const char *interface)
{
	g_autoptr(sd_bus_message) m = NULL;
	int r = sd_bus_message_new_signal(s->bus, &m, PLUGIN_PATH, PLUGIN, "Config");

	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	if (r >= 0)
		r = sd_bus_message_append(m, "{sv}{sv}{sv}{sv}", "tundev", "s", interface,
				"has-ip4", "b", (int)false, "has-ip6", "b", (int)false,
				"can-persist", "b", (int)s->connection->persistent);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'e', "sv");
	if (r >= 0)
		r = sd_bus_message_append_basic(m, 's', "gateway");
	if (r >= 0)
		r = ec_svc_gateway_append(&s->gateway, m);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		(void)sd_bus_send(s->bus, m, NULL);
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const char *name, *before, *after;
	int r = sd_bus_message_read(m, "sss", &name, &before, &after);

	/* The numbers in our name and in our activation's path begin anew with NetworkManager. */
	if (r >= 0 && *before)
		ec_svc_abandon(userdata);
	return MIN(r, 0);
}

/* Our own activation. NetworkManager does not always say Disconnect: not while it asks for secrets.
 */
static int on_active(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	uint32_t state, reason;
	int r = sd_bus_message_read(m, "uu", &state, &reason);

	if (r >= 0 && state == EC_SVC_ACTIVE_DEACTIVATED)
		ec_svc_disconnect(userdata);
	else if (r >= 0 && state == EC_SVC_ACTIVE_ACTIVATED)
		ec_svc_on_activated(userdata);
	return MIN(r, 0);
}

/* NAME.Connection_N is of the activation /…/ActiveConnection/N. */
static char *active_of(const char *name)
{
	static const char mark[] = ".Connection_";
	const char *at = strstr(name, mark);
	guint64 number;

	if (!at || !g_ascii_string_to_unsigned(at + strlen(mark), 10, 0, UINT32_MAX, &number, NULL))
		return NULL;
	return g_strdup_printf(EC_SVC_NM_PATH "/ActiveConnection/%u", (unsigned)number);
}

int ec_svc_plugin_add(EcService *s)
{
	static const char *const owner =
			"type='signal',sender='org.freedesktop.DBus',"
			"interface='org.freedesktop.DBus',member='NameOwnerChanged',"
			"arg0='" EC_SVC_NM "'";
	int r = sd_bus_add_object_vtable(s->bus, &s->slots[0], PLUGIN_PATH, PLUGIN, vtable, s);

	s->active = active_of(s->name);
	if (r >= 0)
		r = sd_bus_add_match_async(s->bus, &s->slots[1], owner, on_owner, NULL, s);
	if (r >= 0 && s->active)
		r = sd_bus_match_signal_async(s->bus, &s->slots[2], EC_SVC_NM, s->active,
				EC_SVC_NM_ACTIVE, "StateChanged", on_active, NULL, s);
	return r;
}

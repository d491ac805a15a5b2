/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-abilities.h"

#include <errno.h>
#include <linux/if_link.h>
#include <string.h>

#include "manager.h"
#include "path.h"

#define IDS_OFFERED 8
/* Below 2^24, as VNIs are, and above what people give by hand. */
#define ID_MIN 0x10000
#define ID_MAX 0xffffff

static bool is_possible(EcManager *m, const EcSettings *s, const EcEncap *e, int family)
{
	return ec_manager_can_do(m, e) && ec_encap_verify(e, s, family, NULL) >= 0;
}

int ec_session_abilities(EcManager *m, const EcSettings *settings, const EcAddress *remote,
		const EcEncap *ret[static EC_ENCAPS_MAX + 1], EcPath *ret_path,
		sd_bus_error *ret_why)
{
	EcUnderlay *u = NULL;
	size_t kept = 0;

	ec_encap_candidates(settings, remote->family, ret);
	for (size_t i = 0; ret[i]; i++) {
		if (is_possible(m, settings, ret[i], remote->family))
			ret[kept++] = ret[i];
	}
	ret[kept] = NULL;
	if (!kept)
		return ec_error(ret_why, EC_ERROR_NOT_SUPPORTED,
				"this kernel can do none of the encapsulations allowed");
	int r = ec_path_to(m, settings, remote, ret, ret_path, &u, ret_why);
	if (r > 0 && u)
		ec_underlays_release(m->underlays, u);
	return r == 0 ? -EHOSTUNREACH : r;
}

EcSettings *ec_session_answering(const EcSettings *settings, const EcChannel *c)
{
	EcSettings *s = ec_settings_copy(settings);
	char text[INET6_ADDRSTRLEN];

	if (!s->local)
		s->local = g_strdup(ec_address_to_string(ec_channel_local(c), text));
	return s;
}

static uint32_t bridge_mtu(EcManager *m, const EcSettings *s)
{
	g_auto(EcLink) link = { 0 };

	return s->bridge && ec_kernel_link_by_name(m->kernel, s->bridge, &link, NULL) > 0 ? link.mtu
											  : 0;
}

/* A bridge may have been told to forward the usual address, as for LLDP. It cannot be told to
 * forward number 2, of the slow protocols (linux/if_bridge.h, BR_GROUPFWD_RESTRICTED). */
uint32_t ec_session_probe_group(EcManager *m, const EcSettings *s)
{
	g_auto(EcLink) link = { 0 };
	const struct nlattr *mask = NULL;

	if (s->bridge && ec_kernel_link_by_name(m->kernel, s->bridge, &link, NULL) > 0 && link.data)
		mask = nla_find(nla_data(link.data), nla_len(link.data), IFLA_BR_GROUP_FWD_MASK);
	bool forwards = mask && nla_len(mask) >= 2 && (nla_get_u16(mask) & (1U << EC_PROBE_GROUP));
	return forwards ? 2 : EC_PROBE_GROUP;
}

static void own_mac(EcManager *m, const EcSettings *s, uint8_t ret[static 6])
{
	if (s->mac)
		(void)ec_mac_from_string(s->mac, ret);
	else
		ec_manager_mac(m, "tunnel", s->name, ret);
}

static bool is_free(const EcEncap *encap, uint32_t id, uint16_t port, void *userdata)
{
	const EcTunnel *t = userdata;

	return ec_manager_id_is_free(t->manager, encap, id, port, &t->remote, t);
}

static uint16_t free_port(const EcEncap *encap, uint16_t wanted, void *userdata)
{
	const EcTunnel *t = userdata;

	return ec_manager_free_port(t->manager, encap, wanted, &t->remote, t);
}

void ec_session_look_at_self(EcSession *s, const EcEncap *const *candidates, const EcPath *path,
		const EcAddress *remote, EcAgreementSide *ret)
{
	EcTunnel *t = s->tunnel;

	*ret = (EcAgreementSide){
		.settings = t->settings,
		.candidates = candidates,
		.local = path->local,
		.remote = *remote,
		.path_mtu = path->mtu,
		.bridge_mtu = bridge_mtu(t->manager, t->settings),
		.before = s->agreement,
		.refused = s->refused,
		.is_free = is_free,
		.free_port = free_port,
		.split = s->split,
		.userdata = t,
	};
	own_mac(t->manager, t->settings, ret->mac);
}

static uint16_t offered_port(EcManager *m, const EcSettings *settings, const EcTunnel *t,
		const EcEncap *encap, uint16_t first, const EcAddress *remote)
{
	const EcAgreement *a = t && t->session ? &t->session->agreement : NULL;

	if (settings->data_port)
		return settings->data_port;
	if (encap->worker && a && a->encap == encap)
		return a->data_port;
	return ec_manager_free_port(m, encap, first, remote, t);
}

void ec_session_greet(EcManager *m, const EcSettings *settings, const EcTunnel *t,
		const EcAddress *remote, const EcEncap *const *candidates, const EcPath *path,
		EcControlMessage *ret)
{
	const EcSession *s = t ? t->session : NULL;

	*ret = (EcControlMessage){
		.type = EC_CONTROL_WELCOME,
		.protocol = EC_CONTROL_PROTOCOL,
		.minor = EC_CONTROL_MINOR,
		.nonce = s ? s->nonce : 0,
		.instance = ec_session_instance(m, settings->name),
		.bridged = settings->bridge != NULL,
		.any_order = !settings->encapsulation ||
			     g_str_equal(settings->encapsulation[0], "auto"),
		.path_mtu = path->mtu,
		.mtu = settings->mtu,
		.bridge_mtu = bridge_mtu(m, settings),
		.probe_group = ec_session_probe_group(m, settings),
	};
	g_strlcpy(ret->name, settings->name, sizeof(ret->name));
	g_strlcpy(ret->full_frames, ec_settings_word("full-frames", settings->full_frames),
			sizeof(ret->full_frames));
	own_mac(m, settings, ret->mac);
	for (const EcEncap *const *e = candidates; *e && ret->n_encaps < EC_CONTROL_ENCAPS_MAX;
			e++) {
		EcControlEncap *c = &ret->encaps[ret->n_encaps++];

		g_strlcpy(c->name, (*e)->name, sizeof(c->name));
		g_strlcpy(c->plane, ec_encap_plane(*e), sizeof(c->plane));
		if ((*e)->flags & EC_ENCAP_UDP)
			c->data_port = offered_port(m, settings, t, *e,
					ec_agreement_first_port(candidates, *e), remote);
	}
	if (s && s->agreement.encap) {
		g_strlcpy(ret->encapsulation, s->agreement.encap->name, sizeof(ret->encapsulation));
		ret->id = s->agreement.id;
	}
	for (unsigned i = 0; i < 1000 && ret->n_ids < IDS_OFFERED; i++) {
		uint32_t id = (uint32_t)g_random_int_range(ID_MIN, ID_MAX + 1);

		if (ec_manager_id_is_unused(m, id))
			ret->ids[ret->n_ids++] = id;
	}
}

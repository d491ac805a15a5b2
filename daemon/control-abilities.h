/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "control.h"

/* What this end can do and has to offer: both ends' word is the ground of an agreement. */

/* What these settings, this kernel and the underlay allow towards an address: as ec_path_to(), but
 * no path is an error, too. */
int ec_session_abilities(EcManager *m, const EcSettings *settings, const EcAddress *remote,
		const EcEncap *ret[static EC_ENCAPS_MAX + 1], EcPath *ret_path,
		sd_bus_error *ret_why);
/* A copy of the settings with the address that this channel was dialled at as local, where they
 * name none. Free it. */
EcSettings *ec_session_answering(const EcSettings *settings, const EcChannel *c);
/* A WELCOME for a peer of this tunnel or of a listener; see control-answer.c. */
void ec_session_greet(EcManager *m, const EcSettings *settings, const EcTunnel *t,
		const EcAddress *remote, const EcEncap *const *candidates, const EcPath *path,
		EcControlMessage *ret);
/* This end of the decision: agreement.h. */
void ec_session_look_at_self(EcSession *s, const EcEncap *const *candidates, const EcPath *path,
		const EcAddress *remote, EcAgreementSide *ret);
/* The last byte of the destination that probes to this end shall have. */
uint32_t ec_session_probe_group(EcManager *m, const EcSettings *s);

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-answer.h"

struct EcAnswer {
	EcManager *manager;
};

int ec_answer_new(EcManager *m, EcAnswer **ret)
{
	*ret = g_new0(EcAnswer, 1);
	(*ret)->manager = m;
	return 0;
}

EcAnswer *ec_answer_free(EcAnswer *a)
{
	g_free(a);
	return NULL;
}

/* Opens no port yet. */
void ec_answer_refresh(EcAnswer *a)
{
	GHashTableIter i;
	EcListener *l;

	g_hash_table_iter_init(&i, a->manager->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

		if (l->wanted && ec_settings_check_supported(l->settings, &error) < 0)
			ec_listener_set_state(l, EC_LISTENER_FAILED, ec_error_token(&error),
					error.message);
		else
			ec_listener_set_state(
					l, l->wanted ? EC_LISTENER_UP : EC_LISTENER_DOWN, "", "");
	}
}

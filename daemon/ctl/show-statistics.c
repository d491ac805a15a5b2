/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

/* What a tunnel has counted, of an interface of the kernel's or of a worker. */

#define N "%" JSON_INTEGER_FORMAT

static json_int_t count(const json_t *statistics, const char *key)
{
	return ctl_json_integer(statistics, key);
}

static bool has_worker(const json_t *statistics)
{
	return json_object_get(statistics, "rx-datagrams");
}

static void show_traffic(const json_t *statistics)
{
	static const struct {
		const char *label, *packets, *bytes, *dropped;
	} ways[] = {
		{ "received", "rx-packets", "rx-bytes", "rx-dropped" },
		{ "sent", "tx-packets", "tx-bytes", "tx-dropped" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(ways); i++) {
		if (!json_object_get(statistics, ways[i].packets))
			continue;
		g_autofree char *size = g_format_size((guint64)count(statistics, ways[i].bytes));
		g_autofree char *dropped = g_strdup_printf(
				", " N " dropped", count(statistics, ways[i].dropped));
		/* A worker's are told by cause. */
		ctl_field(ways[i].label, N " packets, %s%s", count(statistics, ways[i].packets),
				size, has_worker(statistics) ? "" : dropped);
	}
}

/* What was lost, each cause that there was. */
static void show_dropped(const json_t *statistics)
{
	static const struct {
		const char *key, *cause;
	} causes[] = {
		{ "rx-dropped-stranger", "received, not from the peer" },
		{ "rx-dropped-malformed", "received, not of this encapsulation" },
		{ "rx-dropped-id", "received, with another id" },
		{ "rx-dropped-pieces", "received, pieces of frames that never became whole" },
		{ "rx-dropped-device", "received, not taken by the interface" },
		{ "rx-dropped", "received, lost in the interface" },
		{ "tx-dropped", "to send, the interface's queue was full" },
		{ "tx-dropped-malformed", "to send, not a frame" },
		{ "tx-dropped-peer", "to send, the peer's address was not known" },
		{ "tx-dropped-size", "to send, larger than the path" },
		{ "tx-dropped-socket", "to send, refused by the socket" },
	};
	const char *label = "dropped";

	for (size_t i = 0; i < EC_ELEMENTS(causes); i++) {
		json_int_t n = count(statistics, causes[i].key);

		if (n == 0)
			continue;
		ctl_field(label, N " %s", n, causes[i].cause);
		label = "";
	}
	if (*label)
		ctl_field(label, "none");
}

static void show_offloads(const json_t *statistics)
{
	static const struct {
		json_int_t bit; /* as in org.ethercord1.Tunnel.xml */
		const char *word;
	} words[] = { { 1, "checksums" }, { 2, "TCP segmentation" }, { 4, "UDP segmentation" },
		{ 32, "receive coalescing" }, { 8, "UDP GSO outside" }, { 16, "UDP GRO outside" } };
	json_int_t bits = count(statistics, "offloads");
	g_autoptr(GString) text = g_string_new(NULL), lacking = g_string_new(NULL);

	for (size_t i = 0; i < EC_ELEMENTS(words); i++) {
		GString *list = bits & words[i].bit ? text : lacking;

		g_string_append_printf(list, "%s%s", list->len ? ", " : "", words[i].word);
	}
	ctl_field("offloads", "%s%s%s", text->len ? text->str : "none",
			lacking->len ? "; not here: " : "", lacking->str);
}

static void show_worker(const json_t *statistics)
{
	json_int_t cut = count(statistics, "tx-segmented"),
		   joined = count(statistics, "rx-coalesced");
	json_int_t split = count(statistics, "tx-split"), whole = count(statistics, "rx-joined");
	json_int_t answers = count(statistics, "too-big-answers");

	show_dropped(statistics);
	ctl_field("datagrams", N " received in " N " calls, " N " sent in " N " calls",
			count(statistics, "rx-datagrams"), count(statistics, "rx-calls"),
			count(statistics, "tx-datagrams"), count(statistics, "tx-calls"));
	ctl_field("device", N " reads, " N " writes", count(statistics, "device-reads"),
			count(statistics, "device-writes"));
	if (cut + joined > 0)
		ctl_field("super-frames", N " frames cut out of such, " N " put together", cut,
				joined);
	if (split + whole > 0)
		ctl_field("pieces", N " frames sent in pieces, " N " put together", split, whole);
	if (answers > 0)
		ctl_field("too big", N " senders were told so", answers);
	show_offloads(statistics);
}

/* With static control nobody is asked. */
static void show_probes(const json_t *statistics)
{
	json_int_t reconnects = count(statistics, "reconnects");

	if (count(statistics, "rtt-us") > 0)
		ctl_field("round trip", "%.1f ms, jitter %.1f ms",
				(double)count(statistics, "rtt-us") / 1000,
				(double)count(statistics, "jitter-us") / 1000);
	if (count(statistics, "probes-sent") > 0)
		ctl_field("probes", N " sent, " N " lost", count(statistics, "probes-sent"),
				count(statistics, "probes-lost"));
	if (reconnects > 0)
		ctl_field("reconnects", N, reconnects);
}

static bool is_shown_in_words(const char *key)
{
	static const char *const words[] = { "rtt-us", "jitter-us", "reconnects", "device-reads",
		"device-writes", "too-big-answers", "offloads", NULL };

	return g_str_has_prefix(key, "rx-") || g_str_has_prefix(key, "tx-") ||
	       g_str_has_prefix(key, "probes-") || g_strv_contains(words, key);
}

void ctl_show_statistics(const json_t *statistics)
{
	show_traffic(statistics);
	if (has_worker(statistics))
		show_worker(statistics);
	for (CtlMember m = ctl_json_first(statistics); m.key; m = ctl_json_next(statistics, m)) {
		if (!is_shown_in_words(m.key))
			ctl_field(m.key, N, json_integer_value(m.value));
	}
	show_probes(statistics);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "liveness-prove.h"
#include "liveness.h"
#include "unit.h"

/* The parts of liveness that need no interface. */

static const uint8_t key[EC_PROBE_KEY_SIZE] = { 1, 2, 3 }, other[EC_PROBE_KEY_SIZE] = { 1, 2, 4 };

static const EcProbe sample = { .type = EC_PROBE_REQUEST,
	.hears = true,
	.size = 1500,
	.seq = 0x01020304,
	.stamp = 0xa1a2a3a4 };

static void test_codec(void)
{
	/* By hand from the description in probe.h; the HMAC by another implementation. */
	static const uint8_t wire[EC_PROBE_SIZE] = "Ecp\1\1\1\x05\xdc\1\2\3\4\xa1\xa2\xa3\xa4";
	uint8_t data[EC_PROBE_SIZE], digest[32];
	gsize length = sizeof(digest);
	EcProbe p = { 0 };

	ec_probe_encode(&sample, key, data);
	g_assert_cmpmem(data, 16, wire, 16);
	GHmac *hmac = g_hmac_new(G_CHECKSUM_SHA256, key, sizeof(key));
	g_hmac_update(hmac, wire, 16);
	g_hmac_get_digest(hmac, digest, &length);
	g_hmac_unref(hmac);
	g_assert_cmpmem(data + 16, 16, digest, 16);

	g_assert_cmpint(ec_probe_decode(data, 1500, &p), ==, 0);
	g_assert_cmpint(p.type, ==, EC_PROBE_REQUEST);
	g_assert_true(p.hears);
	g_assert_cmpuint(p.size, ==, 1500);
	g_assert_cmpuint(p.seq, ==, sample.seq);
	g_assert_cmpuint(p.stamp, ==, sample.stamp);
	g_assert_true(ec_probe_is_authentic(data, key));
	g_assert_false(ec_probe_is_authentic(data, other));
}

static void test_flips(void)
{
	uint8_t data[EC_PROBE_SIZE];

	ec_probe_encode(&sample, key, data);
	for (size_t bit = 0; bit < sizeof(data) * 8; bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		g_assert_false(ec_probe_is_authentic(data, key));
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	g_assert_true(ec_probe_is_authentic(data, key));
}

static int decode_size(uint16_t said, size_t came)
{
	const EcProbe p = { EC_PROBE_ANSWER, false, said, 1, 2 };
	uint8_t data[EC_PROBE_SIZE];
	EcProbe ret;

	ec_probe_encode(&p, key, data);
	return ec_probe_decode(data, came, &ret);
}

static void test_sizes(void)
{
	uint8_t data[EC_PROBE_SIZE] = { 0 };
	EcProbe p;

	g_assert_cmpint(decode_size(32, 32), ==, 0);
	g_assert_cmpint(decode_size(32, 46), ==, 0); /* an Ethernet trailer */
	g_assert_cmpint(decode_size(65535, 65535), ==, 0);
	g_assert_cmpint(decode_size(31, 32), ==, -EBADMSG);
	g_assert_cmpint(decode_size(0, 32), ==, -EBADMSG);
	g_assert_cmpint(decode_size(1500, 1499), ==, -EBADMSG);
	g_assert_cmpint(decode_size(32, 31), ==, -EBADMSG);
	g_assert_cmpint(ec_probe_decode(data, 32, &p), ==, -EBADMSG);
	ec_probe_encode(&sample, key, data);
	data[3] = 2; /* a later version */
	g_assert_cmpint(ec_probe_decode(data, 1500, &p), ==, -EBADMSG);
	data[3] = 1;
	data[4] = 3; /* an unknown type */
	g_assert_cmpint(ec_probe_decode(data, 1500, &p), ==, -EBADMSG);
}

static void test_window(void)
{
	/* Across the wrap as well. */
	static const uint32_t start[] = { 1000, 0, UINT32_MAX - 3, 0x7fffffff };

	for (size_t i = 0; i < EC_ELEMENTS(start); i++) {
		uint32_t n = start[i];
		EcProbeWindow w = { 0 };

		g_assert_true(ec_probe_window_take(&w, n));
		g_assert_false(ec_probe_window_take(&w, n));
		g_assert_true(ec_probe_window_take(&w, n + 5));
		g_assert_false(ec_probe_window_take(&w, n));
		g_assert_true(ec_probe_window_take(&w, n + 3));
		g_assert_false(ec_probe_window_take(&w, n + 3));
		g_assert_true(ec_probe_window_take(&w, n - 58));
		g_assert_false(ec_probe_window_take(&w, n - 58));
		g_assert_false(ec_probe_window_take(&w, n - 59));
		g_assert_true(ec_probe_window_take(&w, n + 69));
		g_assert_false(ec_probe_window_take(&w, n + 5));
		g_assert_true(ec_probe_window_take(&w, n + 6));
		g_assert_true(ec_probe_window_take(&w, n + 100000));
		g_assert_false(ec_probe_window_take(&w, n + 69));
		g_assert_true(ec_probe_window_take(&w, n + 100000 - 63));
		g_assert_cmpuint(w.newest, ==, n + 100000);
	}
}

/* A path that carries `limit` bytes, each way `rtt`/2, from `ready` on; drop: loses that one and
 * each 7th after it. */
typedef struct Path {
	EcProve prove;
	uint64_t now, rtt, ready;
	uint32_t limit;
	unsigned drop;
	unsigned sent, bytes;
	GArray *coming; /* Coming */
} Path;

typedef struct Coming {
	uint64_t at;
	uint32_t size;
} Coming;

static void path_send(uint32_t size, void *userdata)
{
	Path *p = userdata;
	const Coming c = { p->now + p->rtt, size };

	p->sent++;
	p->bytes += size;
	if (size <= p->limit && p->now + p->rtt / 2 >= p->ready &&
			!(p->drop && p->sent % 7 == p->drop))
		g_array_append_val(p->coming, c);
}

/* The outcome; *p->now is when. */
static uint32_t path_prove(Path *p, uint32_t wanted)
{
	p->now = 5000000;
	p->ready += p->now;
	p->coming = g_array_new(false, false, sizeof(Coming));
	ec_prove_start(&p->prove, 32, wanted, p->now);
	bool over = false;
	while (!over) {
		uint64_t due = ec_prove_due(&p->prove);
		const Coming *c = p->coming->len ? &g_array_index(p->coming, Coming, 0) : NULL;

		g_assert_cmpuint(p->sent, <, 1000);
		if (c && c->at <= due) {
			p->now = MAX(p->now, c->at);
			over = ec_prove_crossed(&p->prove, c->size, p->rtt, p->now);
			g_array_remove_index(p->coming, 0);
		} else {
			p->now = MAX(p->now, due);
			over = ec_prove_tick(&p->prove, p->now, path_send, p);
		}
	}
	g_array_unref(p->coming);
	p->now -= 5000000;
	return p->prove.low;
}

static void test_prove_whole(void)
{
	static const uint64_t rtt[] = { 100, 20000, 300000, 700000 };

	for (size_t i = 0; i < EC_ELEMENTS(rtt); i++) {
		Path p = { .rtt = rtt[i], .limit = 1500 };

		g_assert_cmpuint(path_prove(&p, 1500), ==, 1500);
		g_assert_cmpuint(p.now, ==, rtt[i]);
	}
	Path small = { .rtt = 1000, .limit = 1500 };
	g_assert_cmpuint(path_prove(&small, 32), ==, 32);
}

static void test_prove_late(void)
{
	/* The far end's interface comes up 12 ms later: asked again soon after. */
	Path p = { .rtt = 1000, .limit = 1500, .ready = 12000 };

	g_assert_cmpuint(path_prove(&p, 1500), ==, 1500);
	g_assert_cmpuint(p.now, <, 20000);
}

static void test_prove_none(void)
{
	Path p = { .rtt = 1000, .limit = 10 };

	g_assert_cmpuint(path_prove(&p, 1500), ==, 0);
	g_assert_cmpuint(p.now, ==, EC_LIVENESS_PROVE_USEC);
}

static void test_prove_search(void)
{
	static const uint64_t rtt[] = { 200, 20000, 100000, 700000 };
	static const uint32_t limit[] = { 32, 40, 500, 576, 1280, 1370, 1450, 1499 };

	for (size_t i = 0; i < EC_ELEMENTS(rtt); i++) {
		for (size_t j = 0; j < EC_ELEMENTS(limit); j++) {
			Path p = { .rtt = rtt[i], .limit = limit[j] };
			uint32_t size = path_prove(&p, 1500);

			g_assert_cmpuint(size, <=, limit[j]);
			/* 700 ms leave time for two of three rounds. */
			g_assert_cmpuint(size + (rtt[i] < 500000 ? 8 : 24), >=, limit[j]);
			g_assert_cmpuint(p.now, <=, MAX(EC_LIVENESS_PROVE_USEC, rtt[i] * 5));
		}
	}
	Path jumbo = { .rtt = 20000, .limit = 8950 };
	uint32_t size = path_prove(&jumbo, 9000);
	g_assert_cmpuint(size, <=, 8950);
	g_assert_cmpuint(size, >=, 8942);
}

static void test_prove_lossy(void)
{
	for (unsigned drop = 1; drop < 7; drop++) {
		Path whole = { .rtt = 20000, .limit = 1500, .drop = drop };
		Path less = { .rtt = 20000, .limit = 1450, .drop = drop };

		g_assert_cmpuint(path_prove(&whole, 1500), ==, 1500);
		uint32_t size = path_prove(&less, 1500);
		g_assert_cmpuint(size, <=, 1450);
		g_assert_cmpuint(size, >=, 1442);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/probe/codec", test_codec);
	g_test_add_func("/probe/flips", test_flips);
	g_test_add_func("/probe/sizes", test_sizes);
	g_test_add_func("/probe/window", test_window);
	g_test_add_func("/prove/whole", test_prove_whole);
	g_test_add_func("/prove/late", test_prove_late);
	g_test_add_func("/prove/none", test_prove_none);
	g_test_add_func("/prove/search", test_prove_search);
	g_test_add_func("/prove/lossy", test_prove_lossy);
	return g_test_run();
}

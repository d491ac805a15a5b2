/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#define SIGNED_SIZE 16
#define MAC_SIZE 16
#define FLAG_HEARS 1

static void put16(uint8_t *p, uint16_t v)
{
	v = htons(v);
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, sizeof(v));
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return ntohs(v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return ntohl(v);
}

/* False when the library refuses: then nothing is authentic. */
static bool sign(const uint8_t *data, const uint8_t *key, uint8_t ret[static MAC_SIZE])
{
	uint8_t digest[32];
	bool done = gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, EC_PROBE_KEY_SIZE, data, SIGNED_SIZE,
				    digest) >= 0;

	memcpy(ret, digest, MAC_SIZE);
	explicit_bzero(digest, sizeof(digest));
	return done;
}

void ec_probe_encode(const EcProbe *p, const uint8_t key[static EC_PROBE_KEY_SIZE],
		uint8_t ret[static EC_PROBE_SIZE])
{
	put32(ret, EC_PROBE_MAGIC);
	ret[4] = (uint8_t)p->type;
	ret[5] = p->hears ? FLAG_HEARS : 0;
	put16(ret + 6, p->size);
	put32(ret + 8, p->seq);
	put32(ret + 12, p->stamp);
	if (!sign(ret, key, ret + SIGNED_SIZE))
		memset(ret + SIGNED_SIZE, 0, MAC_SIZE);
}

int ec_probe_decode(const uint8_t *data, size_t size, EcProbe *ret)
{
	if (size < EC_PROBE_SIZE || get32(data) != EC_PROBE_MAGIC ||
			(data[4] != EC_PROBE_REQUEST && data[4] != EC_PROBE_ANSWER))
		return -EBADMSG;
	const EcProbe p = {
		.type = (EcProbeType)data[4],
		.hears = data[5] & FLAG_HEARS,
		.size = get16(data + 6),
		.seq = get32(data + 8),
		.stamp = get32(data + 12),
	};
	if (p.size < EC_PROBE_SIZE || p.size > size)
		return -EBADMSG;
	*ret = p;
	return 0;
}

bool ec_probe_is_authentic(const uint8_t data[static EC_PROBE_SIZE],
		const uint8_t key[static EC_PROBE_KEY_SIZE])
{
	uint8_t mac[MAC_SIZE] = { 0 };

	return sign(data, key, mac) && gnutls_memcmp(mac, data + SIGNED_SIZE, MAC_SIZE) == 0;
}

bool ec_probe_is_newer(uint32_t a, uint32_t b)
{
	return a != b && a - b < 0x80000000u;
}

bool ec_probe_window_take(EcProbeWindow *w, uint32_t seq)
{
	if (!w->any || ec_probe_is_newer(seq, w->newest)) {
		uint32_t step = seq - w->newest;

		w->seen = w->any && step < 64 ? w->seen << step : 0;
		w->seen |= 1;
		w->newest = seq;
		w->any = true;
		return true;
	}
	uint32_t age = w->newest - seq;
	if (age >= 64 || (w->seen >> age & 1))
		return false;
	w->seen |= UINT64_C(1) << age;
	return true;
}

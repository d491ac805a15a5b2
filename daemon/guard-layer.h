/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guard.h"
#include "nft.h"

/*
 * What guard.c and its layers share. A layer renders the fence of a tunnel to items: elements of
 * nftables sets, rules and routes, policies. Tunnels may share items; a shelf counts them, and the
 * layer is only told of those that nobody had before or nobody has any more.
 */

/* The rule and the routes in EC_GUARD_ROUTE_TABLE: early, and marked as ours. The metric keeps the
 * unreachable route behind the one to the device. */
#define EC_GUARD_RULE_PRIORITY 100u
#define EC_GUARD_ROUTE_PROTOCOL 236
#define EC_GUARD_ROUTE_METRIC 4278198272u
/* XFRM: behind every other policy. */
#define EC_GUARD_XFRM_PRIORITY 2147483647u

/* One thing in the kernel. Compared as bytes: made by ec_guard_item() only. */
typedef struct EcGuardItem {
	uint8_t type; /* the layer's own numbers */
	uint8_t family;
	uint8_t protocol;
	uint8_t unused;
	uint16_t port;
	uint16_t unused2;
	uint32_t vni;
	uint8_t peer[16];
	uint8_t other[16]; /* gateway or local address, zeros: none */
	char device[IF_NAMESIZE];
} EcGuardItem;
static_assert(sizeof(EcGuardItem) == 44 + IF_NAMESIZE, "no padding: hashed as bytes");

typedef struct EcGuardShelf EcGuardShelf;

typedef struct EcGuardLayer {
	unsigned bit;      /* of EcGuardLayers */
	const char *word;  /* on the bus */
	const char *title; /* in sentences */
	/* Appends the items of a spec; none when the layer has no part in such a fence. Pure. */
	void (*render)(const EcGuardSpec *spec, GArray *items);
	/* Makes the kernel hold the shelf's items, which already lack `lost` and have `gained`
	 * (arrays of EcGuardItem *): all of it, or -errno with a sentence and nothing new. What
	 * is there already or gone already is fine. */
	int (*apply)(EcGuardShelf *s, const GPtrArray *gained, const GPtrArray *lost,
			sd_bus_error *ret_error);
	/* Puts back what somebody removed; 0, or -errno with a sentence. NULL: follows itself. */
	int (*recheck)(EcGuardShelf *s, sd_bus_error *ret_error);
	void (*done)(EcGuardShelf *s);
} EcGuardLayer;

struct EcGuardShelf {
	const EcGuardLayer *layer;
	EcGuard *guard;
	GHashTable *items; /* EcGuardItem -> how many tunnels */
	bool holds;
	char *why;
	void *own; /* the layer's */
};

#define EC_GUARD_LAYERS 3
extern const EcGuardLayer ec_guard_layer_nftables, ec_guard_layer_route, ec_guard_layer_xfrm;

struct EcGuard {
	sd_event *event;
	char *directory;       /* of the specs */
	char *clamp_directory; /* of the clamps */
	char *table;
	EcGuardChanged changed;
	void *userdata;
	sd_event_source *change, *after, *clamp_timer;
	GHashTable *tunnels; /* name -> Fence, guard.c */
	GHashTable *clamps;  /* name -> Clamp, guard-clamp.c */
	EcGuardShelf shelf[EC_GUARD_LAYERS];
	EcNft *nft;
};

/* A new, zeroed item of that address' family, with the address as its peer. */
EcGuardItem ec_guard_item(uint8_t type, const EcAddress *peer);
/* The address in `bytes` of an item; AF_UNSPEC for zeros. */
EcAddress ec_guard_item_address(const EcGuardItem *item, const uint8_t bytes[static 16]);

/* An empty set of items, which it frees. */
GHashTable *ec_guard_item_set(void);

void ec_guard_shelf_init(EcGuardShelf *s, const EcGuardLayer *layer, EcGuard *g);
void ec_guard_shelf_done(EcGuardShelf *s);
/* Moves a tunnel from one set of items to another (arrays of EcGuardItem; NULL: none), in one
 * transaction. -errno with a sentence: nothing moved. */
int ec_guard_shelf_move(
		EcGuardShelf *s, const GArray *gain, const GArray *lose, sd_bus_error *ret_error);
/* The same for lose alone, whatever the kernel says. */
void ec_guard_shelf_release(EcGuardShelf *s, const GArray *lose);
/* The layer holds (error NULL) or does not. */
void ec_guard_shelf_holds(EcGuardShelf *s, const sd_bus_error *error);

/* Both for a keyfile of one tunnel; pure. -EINVAL with a sentence. */
char *ec_guard_spec_to_data(const EcGuardSpec *spec);
int ec_guard_spec_from_data(const char *data, EcGuardSpec *ret, sd_bus_error *ret_error);
/* Whether a fence can be made of it: -EINVAL with a sentence. */
int ec_guard_spec_check(const EcGuardSpec *spec, sd_bus_error *ret_error);

/* A whole new file or the old one. -errno with a sentence. */
int ec_guard_write(
		const char *directory, const char *name, const char *data, sd_bus_error *ret_error);

/* Opens nftables, once. */
int ec_guard_nft(EcGuard *g, EcNft **ret, sd_bus_error *ret_error);
/* Closes it when neither a fence nor a clamp is there. */
void ec_guard_nft_release(EcGuard *g);
/* Nftables' table of that family changed by another hand. */
void ec_guard_nft_touched(EcGuardShelf *s, const char *who);
void ec_guard_clamp_touched(EcGuard *g);

/* The clamps of an earlier daemon; and those that none of the names has go. */
void ec_guard_clamp_load(EcGuard *g);
void ec_guard_clamp_retain(EcGuard *g, GHashTable *names);

/* Commands that add or delete (`verb`) elements, EcGuardItem each; and those that make the whole
 * table anew, with all of the shelf's items. Pure. */
char *ec_guard_nft_elements(const char *verb, const char *table, const GPtrArray *items);
char *ec_guard_nft_table(const char *table, GHashTable *items);
/* Of a spec's items those that fence ICMP errors, which quote its packets. Pure. */
void ec_guard_nft_errors(const EcGuardSpec *spec, GArray *items);
/* Packets dropped for a tunnel. False when unknown. */
bool ec_guard_nft_counters(
		EcGuardShelf *s, const EcGuardSpec *spec, uint64_t *ret_out, uint64_t *ret_in);

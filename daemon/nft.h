/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * nftables: one transaction at a time through libnftables, and word of those that others make.
 */
typedef struct EcNft EcNft;

typedef enum EcNftFamily {
	EC_NFT_INET = 1 << 0,
	EC_NFT_BRIDGE = 1 << 1,
} EcNftFamily;

/* A table of ours was touched by another hand, or may have been: `families` of EcNftFamily; who: a
 * program's name, "" unknown. Called from the event loop. */
typedef void (*EcNftTouched)(unsigned families, const char *who, void *userdata);

/* Follows tables of this name in both families. -errno with the kernel's words. */
int ec_nft_new(sd_event *event, const char *table, EcNftTouched touched, void *userdata,
		EcNft **ret, sd_bus_error *ret_error);
EcNft *ec_nft_free(EcNft *n);
/* Runs commands as one transaction: all or nothing. -EIO with nftables' words. */
int ec_nft_run(EcNft *n, const char *commands, sd_bus_error *ret_error);
/* Packets counted by the element of a set in the table of family inet. The key as the kernel has
 * it: in network byte order, and each part of a concatenation filled up to 4 bytes. */
int ec_nft_counter(EcNft *n, const char *set, const void *key, size_t size, uint64_t *ret);

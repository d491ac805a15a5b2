/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manager.h"

/*
 * What a person is told who asks why a tunnel does not work, or whether it would: findings, each
 * one sentence and what to do about it. Everything is looked at anew; nothing is changed, and
 * nothing waits for an answer from the network.
 */

typedef enum EcSeverity {
	EC_SEVERITY_OK,
	EC_SEVERITY_INFO,
	EC_SEVERITY_WARNING, /* works, but not as one may believe; or ends by itself */
	EC_SEVERITY_ERROR,   /* does not work, or would not */
	_EC_SEVERITY_MAX,
} EcSeverity;

const char *ec_severity_to_string(EcSeverity severity);

typedef struct EcFinding {
	EcSeverity severity;
	const char *code; /* never changes: for programs */
	char *text;       /* one sentence */
	char *remedy;     /* one sentence, or "" */
} EcFinding;

typedef struct EcDiagnosis {
	EcManager *manager;
	const char *remote; /* an address or a host name; "": the tunnel's, or the machine alone */
	EcTunnel *tunnel;   /* or NULL */
	const EcSettings *settings; /* `underlay` and `encapsulation` that are given count more
				     than the tunnel's */
	GPtrArray *findings;        /* of EcFinding, in the order to read them */
} EcDiagnosis;

/* Fills d->findings, which the caller frees. */
void ec_diagnose(EcDiagnosis *d);

/* diagnose-path.c: the way to an address. settings: the tunnel's or defaults, with what was given
 * in their stead. */
void ec_diagnose_path(EcDiagnosis *d, const EcSettings *settings, const EcAddress *remote);

/* For both. remedy: NULL for none, else text without format. */
void ec_finding_add(EcDiagnosis *d, EcSeverity severity, const char *code, const char *remedy,
		const char *format, ...) G_GNUC_PRINTF(5, 6);
/* "a", "a and b", "a, b and c" of strings. Free it. */
char *ec_words_join(const GPtrArray *words);

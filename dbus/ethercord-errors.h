/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* Every error name that org.ethercord1 answers with; the XML beside this file says which method
 * gives which. The same words, without the prefix, are the tokens of Tunnel.StateReason. */
#define EC_ERROR_PREFIX "org.ethercord1.Error."
#define EC_ERROR_EXISTS EC_ERROR_PREFIX "Exists"
#define EC_ERROR_NO_SUCH_TUNNEL EC_ERROR_PREFIX "NoSuchTunnel"
#define EC_ERROR_NO_SUCH_LISTENER EC_ERROR_PREFIX "NoSuchListener"
#define EC_ERROR_INVALID_SETTING EC_ERROR_PREFIX "InvalidSetting"
#define EC_ERROR_NOT_SUPPORTED EC_ERROR_PREFIX "NotSupported"
#define EC_ERROR_NO_UNDERLAY EC_ERROR_PREFIX "NoUnderlay"
#define EC_ERROR_NOT_PROTECTED EC_ERROR_PREFIX "NotProtected"
#define EC_ERROR_NOT_AUTHORIZED EC_ERROR_PREFIX "NotAuthorized"
#define EC_ERROR_NAME_TAKEN EC_ERROR_PREFIX "NameTaken"
#define EC_ERROR_NO_BRIDGE EC_ERROR_PREFIX "NoBridge"
#define EC_ERROR_LOOP EC_ERROR_PREFIX "Loop"
#define EC_ERROR_REFUSED EC_ERROR_PREFIX "Refused"
#define EC_ERROR_WRONG_KEY EC_ERROR_PREFIX "WrongKey"
#define EC_ERROR_PEER_UNREACHABLE EC_ERROR_PREFIX "PeerUnreachable"
#define EC_ERROR_PROTOCOL EC_ERROR_PREFIX "Protocol"
#define EC_ERROR_BUSY EC_ERROR_PREFIX "Busy"
#define EC_ERROR_LIMIT_EXCEEDED EC_ERROR_PREFIX "LimitExceeded"
#define EC_ERROR_KERNEL EC_ERROR_PREFIX "Kernel"

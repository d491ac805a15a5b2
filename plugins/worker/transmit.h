/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "worker.h"

/* From the device into the socket. */
EcTransmit *ec_transmit_new(void);
EcTransmit *ec_transmit_free(EcTransmit *t);
/* Reads a batch and sends it. When the socket takes no more, the device is not watched until it
 * does. */
void ec_transmit_from_device(EcWorker *w);
/* Where the bytes of a frame that did not come from the device go, EC_FRAME_MAX of them; NULL while
 * the socket takes none. Then sends it. */
uint8_t *ec_transmit_place(EcWorker *w);
void ec_transmit_placed(EcWorker *w, size_t length);
/* The socket takes more again; or there is a new one. */
void ec_transmit_to_socket(EcWorker *w);
/* The events of the socket to wait for. */
uint32_t ec_transmit_events(const EcWorker *w);
/* Sets device_gone if so. */
void ec_transmit_check_device(EcWorker *w);

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sys/ioctl.h>

#include "protocol.h"

/* Linux 6.2; our headers may be older. */
#ifndef TUN_F_USO4
#	define TUN_F_USO4 0x20
#	define TUN_F_USO6 0x40
#endif

#define CSUM TUN_F_CSUM
#define TSO (CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
#define USO (TSO | TUN_F_USO4 | TUN_F_USO6)

static const struct {
	unsigned flags;
	uint32_t offloads;
} steps[] = {
	{ USO, EC_WORKER_DEVICE_CSUM | EC_WORKER_DEVICE_TSO | EC_WORKER_DEVICE_USO },
	{ TSO, EC_WORKER_DEVICE_CSUM | EC_WORKER_DEVICE_TSO },
	{ CSUM, EC_WORKER_DEVICE_CSUM },
	{ 0, 0 },
};

int ec_device_prepare(int fd, bool ethernet, const char **ret_text)
{
	const int size = sizeof(struct virtio_net_hdr), kind = ethernet ? IFF_TAP : IFF_TUN;
	struct ifreq request = { 0 };
	int flags;

	*ret_text = "the device is no TUN/TAP device";
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return -errno;
	*ret_text = ethernet ? "the device is not of the kind that the format carries, TAP"
			     : "the device is not of the kind that the format carries, TUN";
	if ((request.ifr_flags & (IFF_TUN | IFF_TAP)) != kind)
		return -EINVAL;
	*ret_text = "the device is without IFF_NO_PI and IFF_VNET_HDR";
	if (!(request.ifr_flags & IFF_NO_PI) || !(request.ifr_flags & IFF_VNET_HDR))
		return -EINVAL;
	*ret_text = "cannot set the size of the device's virtio header";
	if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
		return -errno;
	*ret_text = "cannot make the device non-blocking";
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	*ret_text = "";
	return 0;
}

uint32_t ec_device_offloads(int fd)
{
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)steps[i].flags) == 0)
			return steps[i].offloads;
	}
	return 0;
}

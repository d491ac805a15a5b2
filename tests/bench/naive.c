/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * naive DEVICE LOCAL REMOTE PORT: a tunnel as they are commonly written, to compare with. A frame
 * of a TAP device is a datagram, with one read() and one send() each; one that is larger than the
 * path carries leaves in IP fragments. The same on the wire as raw-udp.
 */

#define FRAME_MAX 65535

static int open_device(const char *name)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, name, sizeof(ifr.ifr_name) - 1);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int open_socket(const char *local, const char *remote, const char *port)
{
	struct sockaddr_in ends[2] = {};
	const char *names[] = { local, remote };
	int fragment = IP_PMTUDISC_DONT;
	int fd;

	for (unsigned i = 0; i < 2; i++) {
		ends[i].sin_family = AF_INET;
		ends[i].sin_port = htons((uint16_t)atoi(port));
		if (inet_pton(AF_INET, names[i], &ends[i].sin_addr) != 1)
			return -EINVAL;
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &fragment, sizeof(fragment)) < 0 ||
			bind(fd, (const struct sockaddr *)&ends[0], sizeof(ends[0])) < 0 ||
			connect(fd, (const struct sockaddr *)&ends[1], sizeof(ends[1])) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int main(int argc, char **argv)
{
	static uint8_t frame[FRAME_MAX];
	int device, sock;

	if (argc != 5) {
		fprintf(stderr, "usage: naive DEVICE LOCAL REMOTE PORT\n");
		return 2;
	}
	device = open_device(argv[1]);
	sock = device < 0 ? device : open_socket(argv[2], argv[3], argv[4]);
	if (sock < 0) {
		fprintf(stderr, "naive: %s\n", strerror(-sock));
		return 1;
	}
	for (;;) {
		struct pollfd fds[] = { { .fd = device, .events = POLLIN },
			{ .fd = sock, .events = POLLIN } };

		if (poll(fds, 2, -1) < 0)
			return 1;
		for (unsigned i = 0; i < 2; i++) {
			ssize_t n = fds[i].revents ? read(fds[i].fd, frame, sizeof(frame)) : 0;

			/* What the other side does not take is lost, as on a wire. */
			if (n > 0 && write(fds[1 - i].fd, frame, (size_t)n) < 0)
				continue;
		}
	}
}

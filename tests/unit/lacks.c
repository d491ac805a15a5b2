/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dlfcn.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/*
 * A kernel that lacks an offload, for a program that is started with this in LD_PRELOAD and
 * ETHERCORD_LACKS, words with commas:
 *   segment-option  UDP_SEGMENT is not known
 *   segment-NUMBER  a message with it is refused with that errno; segment-NUMBER-SIZE: where its
 *                   datagrams have so many bytes or more
 *   gro             UDP_GRO is not known
 *   device-MASK     TUNSETOFFLOAD refuses these bits (hexadecimal)
 */

typedef ssize_t (*Send)(int, const struct msghdr *, int);
typedef int (*SendMany)(int, struct mmsghdr *, unsigned, int);
typedef int (*GetOption)(int, int, int, void *, socklen_t *);
typedef int (*SetOption)(int, int, int, const void *, socklen_t);
typedef int (*Control)(int, unsigned long, ...);

/* What follows the word, or NULL. */
static const char *lacks(const char *word)
{
	const char *words = getenv("ETHERCORD_LACKS");
	const char *found = words ? strstr(words, word) : NULL;

	return found ? found + strlen(word) : NULL;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

static void *next(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f)
		abort();
	return f;
}

/* Of its datagrams, 0: it has none to be cut into. */
static unsigned segment_size(const struct msghdr *h)
{
	uint16_t size = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR((struct msghdr *)h, c)) {
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT)
			memcpy(&size, CMSG_DATA(c), sizeof(size));
	}
	return size;
}

static int refuses(const struct msghdr *h)
{
	const char *number = lacks("segment-");
	char *end = NULL;
	long error = number ? strtol(number, &end, 10) : 0;
	long least = error && *end == '-' ? strtol(end + 1, NULL, 10) : 1;

	return error && segment_size(h) >= least ? (int)error : 0;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	const int error = refuses(message);

	return error ? fail(error) : ((Send)next("sendmsg"))(fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags)
{
	SendMany real = (SendMany)next("sendmmsg");

	for (unsigned i = 0; i < n; i++) {
		const int error = refuses(&messages[i].msg_hdr);

		if (error)
			return i ? real(fd, messages, i, flags) : fail(error);
	}
	return real(fd, messages, n, flags);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	if (level == IPPROTO_UDP && name == UDP_SEGMENT && lacks("segment-option"))
		return fail(ENOPROTOOPT);
	return ((GetOption)next("getsockopt"))(fd, level, name, value, size);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	if (level == IPPROTO_UDP && name == UDP_GRO && lacks("gro"))
		return fail(ENOPROTOOPT);
	return ((SetOption)next("setsockopt"))(fd, level, name, value, size);
}

int ioctl(int fd, unsigned long request, ...)
{
	const char *mask = lacks("device-");
	va_list words;

	va_start(words, request);
	const unsigned long argument = va_arg(words, unsigned long);
	va_end(words);
	if (request == TUNSETOFFLOAD && mask && (argument & strtoul(mask, NULL, 16)))
		return fail(EINVAL);
	return ((Control)next("ioctl"))(fd, request, argument);
}

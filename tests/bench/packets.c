/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * UDP packets to measure with; a line of JSON says what was seen:
 *   echo ADDRESS PORT                   sends back what comes, for ever
 *   sink ADDRESS PORT                   counts what comes, until standard input ends
 *   blast ADDRESS PORT SECONDS RATE SIZE    RATE packets/s, 0: as many as go
 *   ping ADDRESS PORT NUMBER GAP SIZE   the next one when the last is back, GAP us apart
 *   first ADDRESS PORT LIMIT            one each ms until one is back, at most LIMIT s; when that
 *                                       was, s of CLOCK_MONOTONIC
 * SIZE is that of the UDP payload, bytes.
 */

#define BATCH 64
#define SIZE_MAX_UDP 65507
#define BURST_NS 200000 /* a paced blast sends what is due so often */
#define MS 1000000
#define LOST_NS 1000000000 /* a ping that is not back by then is lost */

static int64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void sleep_until(int64_t at)
{
	struct timespec ts = { .tv_sec = at / 1000000000, .tv_nsec = at % 1000000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int open_socket(const struct sockaddr_in *address, bool listen)
{
	int size = 8 << 20;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (listen && bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int connect_socket(int fd, const struct sockaddr_in *address)
{
	return connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

static int echo(int fd, const struct sockaddr_in *to, char **args)
{
	static uint8_t data[SIZE_MAX_UDP];

	for (;;) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &size);

		if (n >= 0)
			(void)sendto(fd, data, (size_t)n, 0, (const struct sockaddr *)&from, size);
	}
	return 0;
}

/* The number of packets that are there: looked for each ms, so that none wakes anybody. */
static unsigned drain(int fd)
{
	static uint8_t data[BATCH][2048];
	struct iovec iov[BATCH];
	struct mmsghdr messages[BATCH];
	unsigned count = 0;
	int n;

	for (unsigned i = 0; i < BATCH; i++)
		iov[i] = (struct iovec){ data[i], sizeof(data[i]) };
	do {
		for (unsigned i = 0; i < BATCH; i++)
			messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[i],
									.msg_iovlen = 1 } };
		n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
		count += n > 0 ? (unsigned)n : 0;
	} while (n == BATCH);
	return count;
}

static int sink(int fd, const struct sockaddr_in *to, char **args)
{
	struct pollfd end = { .fd = 0, .events = POLLIN };
	int64_t first = 0, last = 0;
	uint64_t count = 0;
	bool ends = false;

	while (!ends) {
		unsigned n;

		ends = poll(&end, 1, 1) != 0;
		n = drain(fd);
		if (n == 0)
			continue;
		last = now();
		first = count == 0 ? last : first;
		count += n;
	}
	printf("{\"received\": %llu, \"seconds\": %.6f}\n", (unsigned long long)count,
			(double)(last - first) / 1e9);
	return 0;
}

static int blast(int fd, const struct sockaddr_in *to, char **args)
{
	static uint8_t data[SIZE_MAX_UDP];
	double seconds = strtod(args[0], NULL), rate = strtod(args[1], NULL);
	struct iovec iov = { data, strtoul(args[2], NULL, 10) };
	struct mmsghdr messages[BATCH] = {};
	int64_t begun = now(), end = begun + (int64_t)(seconds * 1e9), at = begun;
	uint64_t sent = 0, failed = 0;

	if (iov.iov_len > sizeof(data))
		return -EINVAL;
	for (unsigned i = 0; i < BATCH; i++)
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 };
	for (; at < end; at = now()) {
		uint64_t due = (uint64_t)((double)(at - begun) / 1e9 * rate);
		unsigned n = BATCH;
		int r;

		if (rate > 0 && due <= sent) {
			sleep_until(at + BURST_NS);
			continue;
		}
		if (rate > 0 && due - sent < n)
			n = (unsigned)(due - sent);
		r = sendmmsg(fd, messages, n, 0);
		if (r < 0)
			failed++;
		else
			sent += (unsigned)r;
	}
	printf("{\"sent\": %llu, \"seconds\": %.6f, \"failed\": %llu}\n", (unsigned long long)sent,
			(double)(at - begun) / 1e9, (unsigned long long)failed);
	return 0;
}

/* ns until the packet of this number is back; -1: it is lost. */
static int64_t trip(int fd, uint8_t *data, size_t size, uint64_t number, int64_t limit)
{
	int64_t begun = now(), at = begun;

	memcpy(data, &number, sizeof(number));
	(void)send(fd, data, size, 0);
	while (at - begun < limit) {
		struct timespec left = { .tv_sec = 0, .tv_nsec = limit - (at - begun) };
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n = recv(fd, data, size, MSG_DONTWAIT);
		uint64_t back = 0;

		at = now();
		if (n >= (ssize_t)sizeof(back))
			memcpy(&back, data, sizeof(back));
		if (n >= (ssize_t)sizeof(back) && back == number)
			return at - begun;
		if (n < 0)
			(void)ppoll(&p, 1, &left, NULL);
		at = now();
	}
	return -1;
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static int ping(int fd, const struct sockaddr_in *to, char **args)
{
	static uint8_t data[SIZE_MAX_UDP];
	size_t number = strtoul(args[0], NULL, 10), size = strtoul(args[2], NULL, 10);
	size_t got = 0, half, most;
	int64_t gap = strtol(args[1], NULL, 10) * 1000;
	int64_t *times;

	if (size < sizeof(uint64_t) || size > sizeof(data) || number == 0)
		return -EINVAL;
	times = calloc(number, sizeof(*times));
	if (!times)
		return -ENOMEM;
	for (size_t i = 0; i < number; i++) {
		int64_t begun = now();

		times[got] = trip(fd, data, size, i + 1, LOST_NS - 1);
		got += times[got] >= 0;
		if (gap > 0)
			sleep_until(begun + gap);
	}
	qsort(times, got, sizeof(*times), by_size);
	printf("{\"sent\": %zu, \"lost\": %zu", number, number - got);
	half = got / 2;
	most = got * 99 / 100;
	if (got > 0)
		printf(", \"min\": %.2f, \"p50\": %.2f, \"p99\": %.2f, \"max\": %.2f",
				(double)times[0] / 1e3, (double)times[half] / 1e3,
				(double)times[most] / 1e3, (double)times[got - 1] / 1e3);
	printf("}\n");
	free(times);
	return 0;
}

static int first(int fd, const struct sockaddr_in *to, char **args)
{
	static uint8_t data[64];
	int64_t end = now() + strtol(args[0], NULL, 10) * 1000000000;

	while (now() < end) {
		int64_t begun = now();

		/* There may be no route yet. */
		if (connect_socket(fd, to) >= 0 && trip(fd, data, 22, 1, MS) >= 0) {
			printf("{\"at\": %.6f}\n", (double)now() / 1e9);
			return 0;
		}
		sleep_until(begun + MS);
	}
	return -ETIMEDOUT;
}

static const struct {
	const char *name;
	int args;
	bool listen, connect;
	int (*run)(int fd, const struct sockaddr_in *to, char **args);
} verbs[] = {
	{ "echo", 0, true, false, echo },
	{ "sink", 0, true, false, sink },
	{ "blast", 3, false, true, blast },
	{ "ping", 3, false, true, ping },
	{ "first", 1, false, false, first },
};

static int start(unsigned verb, char **args)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(args[1])) };
	int fd, r = 0;

	if (inet_pton(AF_INET, args[0], &address.sin_addr) != 1)
		return -EINVAL;
	fd = open_socket(&address, verbs[verb].listen);
	if (fd < 0)
		return fd;
	if (verbs[verb].connect)
		r = connect_socket(fd, &address);
	if (r >= 0 && !verbs[verb].connect) {
		printf("ready\n");
		(void)fflush(stdout);
	}
	if (r >= 0)
		r = verbs[verb].run(fd, &address, args + 2);
	close(fd);
	return r;
}

int main(int argc, char **argv)
{
	for (unsigned i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		int r;

		if (argc != 4 + verbs[i].args || strcmp(argv[1], verbs[i].name) != 0)
			continue;
		r = start(i, argv + 2);
		if (r < 0)
			fprintf(stderr, "%s: %s\n", argv[1], strerror(-r));
		return r < 0;
	}
	fprintf(stderr, "usage: packets echo|sink|blast|ping|first ADDRESS PORT ...\n");
	return 2;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-host.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"
#include "worker-message.h"

/*
 * The daemon's end of a worker against one that the test plays: at systemd's socket, where a new
 * one is asked for, or at the tunnel's, where one runs already.
 */

#define NAME "t1"
#define IFNAME "ec-t1"
#define PORT 20001
#define PATIENCE_USEC INT64_C(10000000)

typedef struct Bench {
	char *top, *runtime, *directory;
	sd_event *event;
	int starter; /* systemd's socket, from which workers come */
	EcWorkerHost *host;
	EcWorkerSpec spec;

	unsigned changed;
	char *kind, *sentence; /* told last */
	unsigned told, moved;
	EcAddress peer;
	uint16_t peer_port;
} Bench;

static void on_changed(void *userdata)
{
	((Bench *)userdata)->changed++;
}

static void on_peer(const EcAddress *address, uint16_t port, void *userdata)
{
	Bench *b = userdata;

	b->moved++;
	b->peer = *address;
	b->peer_port = port;
}

static void on_told(const char *kind, const char *sentence, void *userdata)
{
	Bench *b = userdata;

	g_assert_true(ec_text_is_clean(sentence));
	b->told++;
	g_free(b->kind);
	g_free(b->sentence);
	b->kind = g_strdup(kind);
	b->sentence = g_strdup(sentence);
}

static const EcWorkerOps ops = { .changed = on_changed, .peer = on_peer, .told = on_told };

static void open_host(Bench *b, uint32_t format)
{
	b->host = ec_worker_host_new(b->event, b->directory, NAME, format, &ops, b);
}

static Bench *bench_new(void)
{
	Bench *b = g_new0(Bench, 1);

	b->top = g_dir_make_tmp("worker-XXXXXX", NULL);
	b->runtime = g_build_filename(b->top, "ethercord", NULL);
	b->directory = g_build_filename(b->runtime, "workers", NULL);
	g_assert_cmpint(g_mkdir_with_parents(b->directory, 0700), ==, 0);
	g_assert_cmpint(sd_event_new(&b->event), >=, 0);
	b->starter = ec_worker_listen(b->top, "ethercord-worker");
	g_assert_cmpint(b->starter, >=, 0);
	b->spec.socket.local.family = AF_INET;
	b->spec.socket.port = PORT;
	b->spec.socket.ttl = 64;
	b->spec.remote = unit_address("192.0.2.1");
	b->spec.remote_port = 4789;
	b->spec.id = 7;
	b->spec.path_mtu = 1420;
	return b;
}

static void remove_all(const char *directory)
{
	g_autoptr(GDir) d = g_dir_open(directory, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		g_autofree char *path = g_build_filename(directory, name, NULL);

		(void)g_unlink(path);
	}
	(void)g_rmdir(directory);
}

static void bench_free(Bench *b)
{
	(void)ec_worker_host_end(b->host);
	(void)close(b->starter);
	(void)sd_event_unref(b->event);
	remove_all(b->directory);
	remove_all(b->runtime);
	remove_all(b->top);
	g_free(b->kind);
	g_free(b->sentence);
	g_free(b->directory);
	g_free(b->runtime);
	g_free(b->top);
	g_free(b);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Bench, bench_free)

/* Runs the daemon's side until then. */
#define pump_until(b, condition)                                                                   \
	do {                                                                                       \
		int64_t end = g_get_monotonic_time() + PATIENCE_USEC;                              \
		while (!(condition)) {                                                             \
			g_assert_cmpint(sd_event_run((b)->event, 5000), >=, 0);                    \
			if (g_get_monotonic_time() > end)                                          \
				g_error("never: %s", #condition);                                  \
		}                                                                                  \
	} while (false)

/* The worker's part */

typedef union Message {
	uint32_t type;
	EcWorkerStart start;
	EcWorkerConfigure configure;
} Message;

static int meet(Bench *b, int listener)
{
	int fd = -1;

	pump_until(b, (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
	return fd;
}

static void close_fds(int fds[static EC_WORKER_FDS])
{
	for (size_t i = 0; i < EC_WORKER_FDS; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
		fds[i] = -1;
	}
}

/* The next packet, which must be of that type; 0: the end. */
static void hear(Bench *b, int fd, uint32_t type, Message *ret, int fds[static EC_WORKER_FDS])
{
	ssize_t n = 0;

	memset(ret, 0, sizeof(*ret));
	pump_until(b, (n = ec_worker_receive(fd, ret, sizeof(*ret), fds)) != -EAGAIN);
	g_assert_cmpint(n, >=, 0);
	g_assert_cmpuint(n > 0 ? ret->type : 0, ==, type);
}

static void hear_only(Bench *b, int fd, uint32_t type)
{
	int fds[EC_WORKER_FDS];
	Message m;

	hear(b, fd, type, &m, fds);
	close_fds(fds);
}

static void say(int fd, const void *message, size_t size)
{
	g_assert_cmpint(ec_worker_send(fd, message, size, NULL, 0), ==, 0);
}

static void say_done(int fd, uint32_t serial, int error, const char *text)
{
	EcWorkerDone m = { .type = EC_WORKER_DONE, .serial = serial, .error = error };

	memcpy(m.text, text, MIN(strlen(text), sizeof(m.text))); /* may not be ended */
	say(fd, &m, sizeof(m));
}

static int make_memory(size_t size, bool sealed)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
	if (sealed)
		g_assert_cmpint(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), ==, 0);
	return fd;
}

typedef struct Hello {
	uint32_t version, format, serial;
	bool without_device, without_memory, small, unsealed;
} Hello;

static const Hello plain_hello = { .version = EC_WORKER_PROTOCOL, .format = EC_WORKER_VXLAN };

/* ret_memory: stays open for the caller where it is not NULL. */
static void say_hello(int fd, const Hello *h, int *ret_memory)
{
	EcWorkerHello m = { .type = EC_WORKER_HELLO,
		.version = h->version,
		.format = h->format,
		.pid = 12345,
		.name = NAME,
		.configure.type = h->serial ? EC_WORKER_CONFIGURE : 0,
		.configure.serial = h->serial };
	int device = open("/dev/null", O_RDWR | O_CLOEXEC);
	int memory = make_memory(
			h->small ? sizeof(EcWorkerStatistics) - 8 : sizeof(EcWorkerStatistics),
			!h->unsealed);
	const int fds[] = { h->without_device ? memory : device, memory };

	g_assert_cmpint(ec_worker_send(fd, &m, sizeof(m), fds,
					h->without_device || h->without_memory ? 1 : 2),
			==, 0);
	(void)close(device);
	if (ret_memory)
		*ret_memory = memory;
	else
		(void)close(memory);
}

static int settle(Bench *b)
{
	return ec_worker_host_settle(b->host, IFNAME, &b->spec, NULL);
}

/* A worker that runs when the daemon begins, up to where it is taken over. */
static int adopt(Bench *b, const Hello *hello, int *ret_memory)
{
	int listener = ec_worker_listen(b->directory, NAME);
	unsigned changed = b->changed;

	g_assert_cmpint(listener, >=, 0);
	open_host(b, EC_WORKER_VXLAN);
	int fd = meet(b, listener);
	(void)close(listener);
	/* Until it has said what it is, nothing is wrong and nothing is sent. */
	g_assert_cmpint(settle(b), ==, 0);
	say_hello(fd, hello, ret_memory);
	pump_until(b, b->changed > changed);
	return fd;
}

/* The daemon's socket, bound as the spec says. */
static void check_socket(int fd)
{
	struct sockaddr_in a = { 0 };
	socklen_t size = sizeof(a), n = sizeof(int);
	int type = 0, ttl = 0;

	g_assert_cmpint(getsockname(fd, (struct sockaddr *)&a, &size), ==, 0);
	g_assert_cmpint(a.sin_family, ==, AF_INET);
	g_assert_cmpuint(ntohs(a.sin_port), ==, PORT);
	g_assert_cmpint(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n), ==, 0);
	g_assert_cmpint(type, ==, SOCK_DGRAM);
	g_assert_cmpint(getsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, &n), ==, 0);
	g_assert_cmpint(ttl, ==, 64);
}

/* What the spec says, as it is told; returns the serial. */
static uint32_t hear_configure(Bench *b, int fd, bool with_socket)
{
	int fds[EC_WORKER_FDS];
	Message m;

	hear(b, fd, EC_WORKER_CONFIGURE, &m, fds);
	const struct sockaddr_in *to = (const struct sockaddr_in *)&m.configure.remote;
	g_assert_cmpuint(m.configure.id, ==, b->spec.id);
	g_assert_cmpuint(m.configure.flags, ==, b->spec.flags);
	g_assert_cmpuint(m.configure.path_mtu, ==, b->spec.path_mtu);
	g_assert_cmpint(to->sin_family, ==, AF_INET);
	g_assert_cmpuint(ntohs(to->sin_port), ==, b->spec.remote_port);
	g_assert_cmpmem(&to->sin_addr, 4, &b->spec.remote.v4, 4);
	g_assert_cmpint(fds[0] >= 0, ==, with_socket);
	g_assert_cmpint(fds[1], ==, -1);
	if (with_socket)
		check_socket(fds[0]);
	close_fds(fds);
	return m.configure.serial;
}

/* The tests */

static void test_adopt(void)
{
	g_autoptr(Bench) b = bench_new();
	EcWorkerStatistics seen;
	int memory = -1, fd = adopt(b, &plain_hello, &memory);

	g_assert_cmpint(ec_worker_host_pid(b->host), ==, 12345);
	g_assert_cmpint(settle(b), ==, 0);
	uint32_t serial = hear_configure(b, fd, true);
	unsigned changed = b->changed;
	say_done(fd, serial, 0, "");
	pump_until(b, b->changed > changed);
	g_assert_cmpint(settle(b), ==, 0);
	/* What it counts is read while it counts. */
	EcWorkerStatistics *counts =
			mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	g_assert_true(counts != MAP_FAILED);
	counts->rx_packets = 5;
	counts->too_big_answers = UINT64_MAX;
	ec_worker_host_statistics(b->host, &seen);
	g_assert_cmpuint(seen.rx_packets, ==, 5);
	g_assert_cmpuint(seen.too_big_answers, ==, UINT64_MAX);
	counts->rx_packets = 6;
	ec_worker_host_statistics(b->host, &seen);
	g_assert_cmpuint(seen.rx_packets, ==, 6);
	g_assert_cmpint(munmap(counts, sizeof(*counts)), ==, 0);
	g_assert_cmpuint(b->told, ==, 0);
	(void)close(memory);
	(void)close(fd);
}

/* Nothing is told again that the worker knows; only a change is, and the socket only with its own.
 */
static void test_next_daemon(void)
{
	g_autoptr(Bench) b = bench_new();
	Hello hello = plain_hello;
	int first = adopt(b, &plain_hello, NULL);

	g_assert_cmpint(settle(b), ==, 0);
	hello.serial = hear_configure(b, first, true);
	b->host = ec_worker_host_free(b->host);
	hear_only(b, first, 0); /* no STOP: it is left to the next one */
	(void)close(first);

	int second = adopt(b, &hello, NULL);
	g_assert_cmpint(settle(b), ==, 0);
	g_assert_cmpint(settle(b), ==, 0);
	b->spec.path_mtu = 1400;
	g_assert_cmpint(settle(b), ==, 0);
	g_assert_cmpuint(hear_configure(b, second, false), >, hello.serial);
	b->spec.socket.tos = 4;
	g_assert_cmpint(settle(b), ==, 0);
	hello.serial = hear_configure(b, second, true);
	b->host = ec_worker_host_free(b->host);
	(void)close(second);

	/* One that was told something else meanwhile is told all. */
	hello.serial++;
	int third = adopt(b, &hello, NULL);
	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, third, true);
	(void)close(third);
}

/* Takes part in the start of a worker; returns the connection. */
static int play_start(Bench *b, uint32_t format)
{
	int fds[EC_WORKER_FDS], fd = meet(b, b->starter);
	struct stat memory;
	Message m;

	hear(b, fd, EC_WORKER_START, &m, fds);
	g_assert_cmpuint(m.start.version, ==, EC_WORKER_PROTOCOL);
	g_assert_cmpuint(m.start.format, ==, format);
	g_assert_cmpstr(m.start.name, ==, NAME);
	g_assert_true(fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0 && fds[3] < 0);
	/* The listener is where the next daemon will look. */
	int next = ec_worker_connect(b->directory, NAME);
	g_assert_cmpint(next, >=, 0);
	int met = meet(b, fds[0]);
	(void)close(met);
	(void)close(next);
	g_assert_cmpint(fstat(fds[2], &memory), ==, 0);
	g_assert_cmpint(memory.st_size, ==, sizeof(EcWorkerStatistics));
	close_fds(fds);
	say_done(fd, m.start.serial, 0, "");
	return fd;
}

/* Whoever is not what is wanted is sent away, and another takes its place. */
static void test_unfit(void)
{
	static const Hello row[] = {
		{ .version = EC_WORKER_PROTOCOL + 1, .format = EC_WORKER_VXLAN },
		{ .version = 0, .format = EC_WORKER_VXLAN },
		{ .version = EC_WORKER_PROTOCOL, .format = EC_WORKER_RAW_UDP },
		{ .version = EC_WORKER_PROTOCOL, .format = 99 },
		{ .version = EC_WORKER_PROTOCOL,
				.format = EC_WORKER_VXLAN,
				.without_memory = true },
		{ .version = EC_WORKER_PROTOCOL,
				.format = EC_WORKER_VXLAN,
				.without_device = true },
		/* Reading behind its end would be the end of the daemon. */
		{ .version = EC_WORKER_PROTOCOL, .format = EC_WORKER_VXLAN, .small = true },
		{ .version = EC_WORKER_PROTOCOL, .format = EC_WORKER_VXLAN, .unsealed = true },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(Bench) b = bench_new();
		EcWorkerStatistics seen;
		int fd = adopt(b, &row[i], NULL);

		hear_only(b, fd, EC_WORKER_STOP);
		hear_only(b, fd, 0);
		(void)close(fd);
		ec_worker_host_statistics(b->host, &seen);
		g_assert_cmpint(settle(b), ==, 0);
		fd = play_start(b, EC_WORKER_VXLAN);
		(void)hear_configure(b, fd, true);
		g_assert_cmpuint(b->told, ==, 0);
		(void)close(fd);
	}
}

/* Five times a minute, and then it rests. */
static void test_restarts(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(Bench) b = bench_new();
	int fd = adopt(b, &plain_hello, NULL);

	for (unsigned i = 0; i < 5; i++) {
		unsigned told = b->told;

		(void)close(fd);
		pump_until(b, b->told > told);
		g_assert_cmpstr(b->kind, ==, "worker-ended");
		g_assert_nonnull(strstr(b->sentence, "its worker (process "));
		g_assert_cmpint(settle(b), ==, 0);
		fd = play_start(b, EC_WORKER_VXLAN);
		(void)hear_configure(b, fd, true);
		g_assert_cmpint(settle(b), ==, 0);
	}
	(void)close(fd);
	pump_until(b, b->told == 6);
	for (unsigned i = 0; i < 2; i++) {
		sd_bus_error_free(&error);
		unit_assert_error(ec_worker_host_settle(b->host, IFNAME, &b->spec, &error), &error,
				"LimitExceeded", "started 5 times within a minute and rests");
		g_assert_nonnull(strstr(error.message, "the worker ended"));
	}
	g_assert_cmpint(accept4(b->starter, NULL, NULL, 0), ==, -1);
	g_assert_cmpint(errno, ==, EAGAIN);
}

/* What no worker says is not taken for anything; what follows is. */
static void test_nonsense(void)
{
	g_autoptr(Bench) b = bench_new();
	int fd = adopt(b, &plain_hello, NULL);
	uint8_t bytes[sizeof(EcWorkerHello) + 64];

	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, fd, true);
	unsigned changed = b->changed;
	for (uint32_t type = 0; type < 12; type++) {
		size_t size = type == EC_WORKER_HELLO  ? sizeof(EcWorkerHello) - 1
			      : type == EC_WORKER_DONE ? sizeof(EcWorkerDone) - 1
						       : sizeof(EcWorkerEvent) - 1;

		memset(bytes, 0xff, sizeof(bytes));
		memcpy(bytes, &type, sizeof(type));
		say(fd, bytes, size);
		say(fd, bytes, sizeof(type));
		say(fd, bytes, 1);
	}
	/* Larger than anything that there is, with descriptors that nobody asked for. */
	const int extra[] = { fd, fd, fd, fd };
	memset(bytes, 0xff, sizeof(bytes));
	g_assert_cmpint(ec_worker_send(fd, bytes, sizeof(bytes), extra, EC_ELEMENTS(extra)), ==, 0);
	/* A second HELLO, and an event of no kind. */
	say_hello(fd, &(Hello){ .version = 77 }, NULL);
	EcWorkerEvent event = { .type = EC_WORKER_EVENT, .kind = 99 };
	memset(event.text, 'x', sizeof(event.text));
	say(fd, &event, sizeof(event));
	event.kind = EC_WORKER_LACKS;
	memset(event.text, 0xfe, sizeof(event.text));
	event.text[0] = '\n';
	say(fd, &event, sizeof(event)); /* on_told() looks whether it is clean */
	pump_until(b, b->told == 1);
	g_assert_cmpstr(b->kind, ==, "worker-lacks");
	g_assert_cmpuint(b->changed, ==, changed);
	g_assert_cmpuint(b->moved, ==, 0);
	g_assert_cmpint(settle(b), ==, 0);
	(void)close(fd);
}

/* An answer before it was asked, and a HELLO that never comes. */
static void test_silent(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(Bench) b = bench_new();
	int listener = ec_worker_listen(b->directory, NAME);

	open_host(b, EC_WORKER_VXLAN);
	int fd = meet(b, listener);
	(void)close(listener);
	say_done(fd, 1, 0, "");
	pump_until(b, b->changed > 0); /* after 2 s it is given up */
	hear_only(b, fd, 0);
	(void)close(fd);
	g_assert_cmpint(settle(b), ==, 0);
	fd = play_start(b, EC_WORKER_VXLAN);
	(void)hear_configure(b, fd, true);
	/* START was answered, CONFIGURE is not. */
	pump_until(b, ec_worker_host_settle(b->host, IFNAME, &b->spec, &error) < 0);
	unit_assert_error(-1, &error, "Kernel", "the worker does not answer");
	/* Nor the next one: it hangs. Who is no child is told to stop, and there is another one. */
	pump_until(b, settle(b) >= 0 && b->told > 0);
	g_assert_cmpstr(b->kind, ==, "worker-ended");
	g_assert_nonnull(strstr(b->sentence, "did not answer"));
	int fds[EC_WORKER_FDS];
	Message m;
	do {
		g_assert_cmpint(ec_worker_receive(fd, &m, sizeof(m), fds), >, 0);
		close_fds(fds);
	} while (m.type == EC_WORKER_CONFIGURE);
	g_assert_cmpuint(m.type, ==, EC_WORKER_STOP);
	hear_only(b, fd, 0);
	(void)close(fd);
	(void)close(play_start(b, EC_WORKER_VXLAN));
}

/* It cannot begin, as with a device that was deleted: another one gets another device. */
static void test_start_refused(void)
{
	g_autoptr(Bench) b = bench_new();
	int fds[EC_WORKER_FDS];
	Message m;

	open_host(b, EC_WORKER_VXLAN);
	g_assert_cmpint(settle(b), ==, 0);
	int fd = meet(b, b->starter);
	hear(b, fd, EC_WORKER_START, &m, fds);
	close_fds(fds);
	hear_only(b, fd, EC_WORKER_CONFIGURE);
	say_done(fd, m.start.serial, -EBADFD, "no device");
	hear_only(b, fd, EC_WORKER_STOP);
	hear_only(b, fd, 0);
	(void)close(fd);
	g_assert_cmpint(settle(b), ==, 0);
	(void)close(play_start(b, EC_WORKER_VXLAN));
}

/* A frame comes out of the device: up, with nobody to take it. */
static void give_frame(void)
{
	struct ifreq request = { .ifr_name = IFNAME };
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	const uint8_t frame[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88,
		0xb5 };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	g_assert_cmpint(fd, >=, 0);
	request.ifr_flags = IFF_UP;
	g_assert_cmpint(ioctl(fd, SIOCSIFFLAGS, &request), ==, 0);
	to.sll_ifindex = (int)if_nametoindex(IFNAME);
	g_assert_cmpint(sendto(fd, frame, sizeof(frame), 0, (struct sockaddr *)&to, sizeof(to)), ==,
			sizeof(frame));
	(void)close(fd);
}

/* The device has something for the worker, who does not take it. */
static void test_hangs(void)
{
	const EcWorkerEvent here = { .type = EC_WORKER_EVENT, .kind = EC_WORKER_HERE };
	g_autoptr(Bench) b = bench_new();

	open_host(b, EC_WORKER_VXLAN);
	g_assert_cmpint(settle(b), ==, 0);
	int fd = play_start(b, EC_WORKER_VXLAN);
	say_done(fd, hear_configure(b, fd, true), 0, "");
	give_frame();
	/* One that answers may have reasons. */
	for (unsigned i = 0; i < 2; i++) {
		hear_only(b, fd, EC_WORKER_ASK);
		say(fd, &here, sizeof(here));
	}
	hear_only(b, fd, EC_WORKER_ASK);
	hear_only(b, fd, EC_WORKER_ASK);
	g_assert_cmpuint(b->told, ==, 0);
	hear_only(b, fd, EC_WORKER_STOP);
	hear_only(b, fd, 0);
	g_assert_nonnull(strstr(b->sentence, "hung"));
	(void)close(fd);
	g_assert_cmpint(settle(b), ==, 0);
	(void)close(play_start(b, EC_WORKER_VXLAN));
}

static void test_refused(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(Bench) b = bench_new();
	int fd = adopt(b, &plain_hello, NULL);
	char endless[EC_WORKER_TEXT + 1];

	memset(endless, 'y', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	memcpy(endless, "no \xff\n", 5);
	g_assert_cmpint(settle(b), ==, 0);
	uint32_t serial = hear_configure(b, fd, true);
	unsigned changed = b->changed;
	say_done(fd, serial, -ENOMEM, endless);
	pump_until(b, b->changed > changed);
	int r = ec_worker_host_settle(b->host, IFNAME, &b->spec, &error);
	g_assert_cmpint(r, ==, -ENOMEM);
	unit_assert_error(r, &error, "Kernel", "no ");
	/* Tried again after a while, as it is; at once when it is something else. */
	b->spec.path_mtu = 1300;
	g_assert_cmpint(settle(b), ==, 0);
	serial = hear_configure(b, fd, false);
	changed = b->changed;
	pump_until(b, b->changed > changed);
	g_assert_cmpint(settle(b), ==, 0);
	g_assert_cmpuint(hear_configure(b, fd, true), >, serial);
	(void)close(fd);
}

static void say_peer(int fd, const char *text, uint16_t port)
{
	EcWorkerEvent m = { .type = EC_WORKER_EVENT, .kind = EC_WORKER_PEER };
	EcAddress a = unit_address(text);
	struct sockaddr_in *in = (struct sockaddr_in *)&m.remote;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&m.remote;

	m.remote.ss_family = (sa_family_t)a.family;
	if (a.family == AF_INET6)
		*in6 = (struct sockaddr_in6){
			.sin6_family = AF_INET6, .sin6_addr = a.v6, .sin6_port = htons(port)
		};
	else if (a.family == AF_INET)
		*in = (struct sockaddr_in){
			.sin_family = AF_INET, .sin_addr = a.v4, .sin_port = htons(port)
		};
	else
		m.remote.ss_family = AF_UNIX;
	say(fd, &m, sizeof(m));
}

/* The peer is another one only where that was asked for, and only at an address. */
static void test_peer(void)
{
	g_autoptr(Bench) b = bench_new();
	EcAddress four = unit_address("192.0.2.77"), six = unit_address("2001:db8::77");
	int fd = adopt(b, &plain_hello, NULL);

	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, fd, true);
	say_peer(fd, "192.0.2.66", 1);
	unsigned changed = b->changed;
	say_done(fd, 0, 0, "");
	pump_until(b, b->changed > changed); /* by then it was read */
	g_assert_cmpuint(b->moved, ==, 0);
	b->spec.flags = EC_WORKER_ROAM;
	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, fd, false);
	say_peer(fd, "", 9);
	say_peer(fd, "192.0.2.77", 40000);
	pump_until(b, b->moved > 0);
	g_assert_true(ec_address_equal(&b->peer, &four));
	g_assert_cmpuint(b->peer_port, ==, 40000);
	say_peer(fd, "2001:db8::77", 50000);
	pump_until(b, b->moved > 1);
	g_assert_true(ec_address_equal(&b->peer, &six));
	g_assert_cmpuint(b->peer_port, ==, 50000);
	g_assert_cmpuint(b->moved, ==, 2);
	(void)close(fd);
}

/* Its device came back as another: the same spec, with a new socket. */
static void test_new_socket(void)
{
	g_autoptr(Bench) b = bench_new();
	EcWorkerEvent m = { .type = EC_WORKER_EVENT, .kind = EC_WORKER_SOCKET, .error = -ENODEV };
	int fd = adopt(b, &plain_hello, NULL);

	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, fd, true);
	unsigned changed = b->changed;
	say(fd, &m, sizeof(m));
	pump_until(b, b->changed > changed);
	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, fd, true);
	(void)close(fd);
}

static void test_device_gone(void)
{
	g_autoptr(Bench) b = bench_new();
	EcWorkerEvent m = { .type = EC_WORKER_EVENT, .kind = EC_WORKER_DEVICE };
	int fd = adopt(b, &plain_hello, NULL);

	g_assert_cmpuint(if_nametoindex(IFNAME), ==, 0);
	say(fd, &m, sizeof(m));
	(void)close(fd);
	pump_until(b, b->told == 1);
	g_assert_cmpint(settle(b), ==, 0);
	fd = play_start(b, EC_WORKER_VXLAN);
	g_assert_cmpuint(if_nametoindex(IFNAME), !=, 0);
	(void)close(fd);
}

/* Another format on the same interface: another worker. */
static void test_format(void)
{
	g_autoptr(Bench) b = bench_new();
	int fd = adopt(b, &plain_hello, NULL);

	ec_worker_host_set_format(b->host, EC_WORKER_VXLAN);
	g_assert_cmpint(settle(b), ==, 0);
	(void)hear_configure(b, fd, true);
	ec_worker_host_set_format(b->host, EC_WORKER_RAW_UDP);
	hear_only(b, fd, EC_WORKER_STOP);
	hear_only(b, fd, 0);
	(void)close(fd);
	g_assert_cmpint(settle(b), ==, 0);
	fd = play_start(b, EC_WORKER_RAW_UDP);
	(void)hear_configure(b, fd, true);
	(void)close(fd);
}

static void test_end(void)
{
	g_autoptr(Bench) b = bench_new();
	g_autofree char *path = g_build_filename(b->directory, NAME, NULL);
	int fd = adopt(b, &plain_hello, NULL);

	g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
	b->host = ec_worker_host_end(b->host);
	hear_only(b, fd, EC_WORKER_STOP);
	hear_only(b, fd, 0);
	g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
	(void)close(fd);
}

static bool is_wanted(const char *name, void *userdata)
{
	return g_str_equal(name, userdata);
}

static void test_sweep(void)
{
	g_autoptr(Bench) b = bench_new();
	g_autofree char *path = g_build_filename(b->directory, "gone", NULL);
	g_autofree char *other = g_build_filename(b->directory, "kept", NULL);
	int kept = ec_worker_listen(b->directory, "kept");
	int gone = ec_worker_listen(b->directory, "gone");

	ec_worker_sweep(b->directory, is_wanted, (char *)"kept");
	int fd = meet(b, gone);
	hear_only(b, fd, EC_WORKER_STOP);
	g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
	g_assert_true(g_file_test(other, G_FILE_TEST_EXISTS));
	g_assert_cmpint(accept4(kept, NULL, NULL, 0), ==, -1);
	(void)close(fd);
	(void)close(kept);
	(void)close(gone);
	ec_worker_sweep("/nonexistent", is_wanted, NULL);
}

int main(int argc, char *argv[])
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = { { "adopt", test_adopt }, { "next-daemon", test_next_daemon },
		{ "unfit", test_unfit }, { "restarts", test_restarts },
		{ "nonsense", test_nonsense }, { "silent", test_silent }, { "hangs", test_hangs },
		{ "start-refused", test_start_refused }, { "refused", test_refused },
		{ "peer", test_peer }, { "new-socket", test_new_socket },
		{ "device-gone", test_device_gone }, { "format", test_format }, { "end", test_end },
		{ "sweep", test_sweep } };

	g_test_init(&argc, &argv, NULL);
	/* Devices are made, which takes rights, and a place of their own. */
	if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0) {
		(void)printf("1..0 # SKIP no rights to make interfaces\n");
		return 0;
	}
	for (size_t i = 0; i < EC_ELEMENTS(tests); i++) {
		g_autofree char *path = g_strconcat("/worker-host/", tests[i].name, NULL);

		g_test_add_func(path, tests[i].run);
	}
	return g_test_run();
}

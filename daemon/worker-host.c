/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "worker-message.h"

/*
 * DOC: Theory of operation
 *
 * A worker is a process of its own so that packets need no daemon: it carries on when the daemon
 * ends, crashes or is replaced. What both say to each other is in worker/protocol.h. The daemon
 * makes what takes rights - device, socket, shared memory - and keeps them open as well: a worker
 * that dies costs the frames that it had in hand and not the interface, and what comes before the
 * next one runs waits in the queues of device and socket.
 *
 * Where systemd runs the daemon it also starts the workers, each as a unit of its own with a user
 * of its own: /run/ethercord-worker is its socket (ethercord-worker.socket), and every connection
 * there becomes a worker. Elsewhere the daemon starts them.
 *
 *   ADOPTING  a worker may run: connected to DIRECTORY/NAME, HELLO is due
 *   STARTING  START is sent; its answer is due
 *   RUNNING   it answered; CONFIGURE is sent whenever the spec changes
 *   IDLE      none; the next ec_worker_host_settle() starts one
 *
 * A worker that dies is started again with all it had, but not more than MOST_STARTS times a
 * minute. A configuration that it refused is not sent again before RETRY_USEC.
 *
 * It reads what strangers send, so it is not believed either: what it says is looked at before
 * anything here depends on it.
 */

#define START "ethercord-worker"
#define MOST_STARTS 5
#define STARTS_USEC 60000000ULL
#define ANSWER_USEC 2000000ULL
#define BEGIN_USEC 15000000ULL /* the same of one that systemd has to start first */
#define RETRY_USEC 1000000ULL

typedef enum Phase {
	IDLE,
	ADOPTING,
	STARTING,
	RUNNING
} Phase;

struct EcWorkerHost {
	sd_event *event;
	char *directory, *name;
	uint32_t format;
	const EcWorkerOps *ops;
	void *userdata;

	Phase phase;
	int device, memory, listener;   /* -1: none */
	int socket;                     /* of `spec`, for the next worker; -1: none */
	EcWorkerStatistics *statistics; /* of memory, NULL: none */
	int control;                    /* the connection; -1 */
	pid_t pid;                      /* 0: not known */
	bool own;                       /* our child */
	sd_event_source *io, *timer, *child, *retry;

	EcWorkerSpec spec; /* sent last */
	bool sent;
	uint32_t serial;
	int error; /* of the last answer, or of what was tried here */
	char text[EC_WORKER_TEXT];
	uint64_t starts[MOST_STARTS]; /* the last ones */
	unsigned n_starts;
	bool failing; /* restarted too often */
};

/* Paths */

static char *path_of(const char *directory, const char *name)
{
	return g_build_filename(directory, name, NULL);
}

/* DIRECTORY is /run/ethercord/workers; systemd's socket is not in what is the daemon's. */
static char *start_directory(const char *directory)
{
	g_autofree char *runtime = g_path_get_dirname(directory);

	return g_path_get_dirname(runtime);
}

bool ec_worker_is_possible(const char *directory)
{
	g_autofree char *program = ec_worker_program();
	g_autofree char *start = start_directory(directory);
	g_autofree char *path = path_of(start, START);

	return (program || access(path, W_OK) == 0) && access("/dev/net/tun", R_OK | W_OK) == 0;
}

static int drop_fd(int fd)
{
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

static void map_memory(EcWorkerHost *h)
{
	void *p = h->memory < 0 ? MAP_FAILED
				: mmap(NULL, sizeof(EcWorkerStatistics), PROT_READ, MAP_SHARED,
						  h->memory, 0);

	h->statistics = p == MAP_FAILED ? NULL : p;
}

static void unmap_memory(EcWorkerHost *h)
{
	if (h->statistics)
		(void)munmap(h->statistics, sizeof(EcWorkerStatistics));
	h->statistics = NULL;
	h->memory = drop_fd(h->memory);
}

static void disconnect(EcWorkerHost *h)
{
	h->io = sd_event_source_disable_unref(h->io);
	h->timer = sd_event_source_disable_unref(h->timer);
	h->control = drop_fd(h->control);
	h->phase = IDLE;
	h->sent = false;
}

static void tell(const EcWorkerHost *h, const char *kind, const char *format, ...)
		G_GNUC_PRINTF(3, 4);

static void tell(const EcWorkerHost *h, const char *kind, const char *format, ...)
{
	va_list words;

	va_start(words, format);
	g_autofree char *sentence = g_strdup_vprintf(format, words);
	va_end(words);
	h->ops->told(kind, sentence, h->userdata);
}

/* What a worker was told last is noted beside its socket: the next daemon need not tell it again,
 * which would cost the datagrams that its old UDP socket holds. */
typedef struct Note {
	uint32_t version, serial;
	EcWorkerSpec spec;
} Note;

static char *note_path(const char *directory, const char *name)
{
	g_autofree char *hidden = g_strconcat(".", name, NULL);

	return path_of(directory, hidden);
}

static void save_spec(const EcWorkerHost *h)
{
	g_autofree char *path = note_path(h->directory, h->name);
	Note note;

	memset(&note, 0, sizeof(note));
	note.version = EC_WORKER_PROTOCOL;
	note.serial = h->serial;
	note.spec = h->spec;
	(void)g_file_set_contents_full(path, (const char *)&note, sizeof(note),
			G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL);
}

static bool load_spec(EcWorkerHost *h)
{
	g_autofree char *path = note_path(h->directory, h->name), *bytes = NULL;
	gsize n = 0;
	Note note;

	if (!g_file_get_contents(path, &bytes, &n, NULL) || n != sizeof(note))
		return false;
	memcpy(&note, bytes, sizeof(note));
	h->spec = note.spec;
	return note.version == EC_WORKER_PROTOCOL && note.serial == h->serial;
}

static void forget_paths(const char *directory, const char *name)
{
	g_autofree char *path = path_of(directory, name), *note = note_path(directory, name);

	(void)unlink(path);
	(void)unlink(note);
}

/* What a worker says */

static void take_peer(EcWorkerHost *h, const struct sockaddr_storage *from)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
	EcAddress a = { .family = from->ss_family };

	if (!h->sent || !(h->spec.flags & EC_WORKER_ROAM))
		return;
	if (a.family == AF_INET6)
		a.v6 = in6->sin6_addr;
	else if (a.family == AF_INET)
		a.v4 = in->sin_addr;
	else
		return;
	h->ops->peer(&a, ntohs(a.family == AF_INET6 ? in6->sin6_port : in->sin_port), h->userdata);
}

static void take_hello(EcWorkerHost *h, const EcWorkerHello *m, int fds[static EC_WORKER_FDS])
{
	if (h->phase != ADOPTING)
		return;
	h->timer = sd_event_source_disable_unref(h->timer);
	h->pid = (pid_t)m->pid;
	/* Of another version, or one whose format is not wanted any more: a new one does. */
	if (m->version != EC_WORKER_PROTOCOL || m->format != h->format || fds[0] < 0 ||
			!ec_worker_memory_is_whole(fds[1], sizeof(EcWorkerStatistics))) {
		const uint32_t stop = EC_WORKER_STOP;

		(void)ec_worker_send(h->control, &stop, sizeof(stop), NULL, 0);
		disconnect(h);
		h->ops->changed(h->userdata);
		return;
	}
	h->device = drop_fd(h->device);
	unmap_memory(h);
	h->socket = drop_fd(h->socket);
	h->device = fds[0];
	h->memory = fds[1];
	h->socket = fds[2];
	fds[0] = fds[1] = fds[2] = -1;
	map_memory(h);
	h->serial = m->configure.serial;
	h->sent = load_spec(h);
	if (!h->sent)
		h->socket = drop_fd(h->socket);
	h->phase = RUNNING;
	ec_log(LOG_DEBUG, "worker %d of %s is taken over", h->pid, h->name);
	if ((h->spec.flags & EC_WORKER_ROAM) && m->configure.remote.ss_family != AF_UNSPEC)
		take_peer(h, &m->configure.remote);
	h->ops->changed(h->userdata);
}

static void look_for_one(EcWorkerHost *h);

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcWorkerHost *h = userdata;

	h->retry = sd_event_source_disable_unref(h->retry);
	h->socket = drop_fd(h->socket);
	h->sent = false;
	h->error = 0;
	h->failing = false;
	if (h->phase == IDLE && h->device < 0) /* one that did not answer, then */
		look_for_one(h);
	h->ops->changed(h->userdata);
	return 0;
}

static void retry_later(EcWorkerHost *h, uint64_t usec)
{
	if (!h->retry)
		(void)sd_event_add_time_relative(
				h->event, &h->retry, CLOCK_BOOTTIME, usec, 0, on_retry, h);
}

/* An answer that another request has overtaken says nothing any more. */
static void take_done(EcWorkerHost *h, EcWorkerDone *m)
{
	bool begun = h->phase == STARTING, last = m->serial == h->serial;

	if (h->phase != STARTING && h->phase != RUNNING)
		return;
	h->phase = RUNNING;
	if (last)
		h->timer = sd_event_source_disable_unref(h->timer);
	if (last && m->error == -EISCONN) { /* it takes a new socket to be less choosy */
		h->socket = drop_fd(h->socket);
		h->sent = false;
	} else if (m->error && (begun || last)) {
		h->error = m->error < 0 ? m->error : -EPROTO;
		ec_worker_clean(m->text, sizeof(m->text));
		g_strlcpy(h->text, m->text, sizeof(h->text));
		retry_later(h, RETRY_USEC);
	}
	h->ops->changed(h->userdata);
}

static void take_event(EcWorkerHost *h, EcWorkerEvent *m)
{
	ec_worker_clean(m->text, sizeof(m->text));
	switch (m->kind) {
	case EC_WORKER_PEER:
		take_peer(h, &m->remote);
		break;
	case EC_WORKER_LACKS:
		tell(h, "worker-lacks", "%s", m->text);
		break;
	case EC_WORKER_SOCKET:
		h->sent = false; /* with a new socket */
		h->socket = drop_fd(h->socket);
		h->ops->changed(h->userdata);
		break;
	case EC_WORKER_DEVICE:
		h->device = drop_fd(h->device);
		break;
	default:
		break;
	}
}

static void take_message(EcWorkerHost *h, void *message, size_t n, int fds[static EC_WORKER_FDS])
{
	const uint32_t *type = message;

	if (n >= sizeof(EcWorkerHello) && *type == EC_WORKER_HELLO)
		take_hello(h, message, fds);
	else if (n >= sizeof(EcWorkerDone) && *type == EC_WORKER_DONE)
		take_done(h, message);
	else if (n >= sizeof(EcWorkerEvent) && *type == EC_WORKER_EVENT)
		take_event(h, message);
}

/* Its end */

static char *cause_of(const siginfo_t *si)
{
	if (!si)
		return g_strdup("ended");
	return si->si_code == CLD_EXITED
			       ? g_strdup_printf("exited with status %d", si->si_status)
			       : g_strdup_printf("was killed by signal %d (%s)", si->si_status,
						 g_strsignal(si->si_status));
}

static void ended(EcWorkerHost *h, const siginfo_t *si)
{
	bool was = h->phase == RUNNING || h->phase == STARTING;
	g_autofree char *cause = cause_of(si);

	h->child = sd_event_source_disable_unref(h->child);
	disconnect(h);
	if (was) {
		ec_log(LOG_WARNING, "the worker of %s (process %d) %s", h->name, h->pid, cause);
		tell(h, "worker-ended", "its worker (process %d) %s", h->pid, cause);
		g_snprintf(h->text, sizeof(h->text), "the worker %s", cause);
	}
	h->pid = 0;
	h->ops->changed(h->userdata);
}

static int on_child(sd_event_source *s, const siginfo_t *si, void *userdata)
{
	ended(userdata, si);
	return 0;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcWorkerHost *h = userdata;
	union {
		EcWorkerHello hello;
		EcWorkerDone done;
		EcWorkerEvent event;
	} message;
	int fds[EC_WORKER_FDS];
	ssize_t n = ec_worker_receive(fd, &message, sizeof(message), fds);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n > 0)
		take_message(h, &message, (size_t)n, fds);
	for (size_t i = 0; i < EC_WORKER_FDS; i++)
		(void)drop_fd(fds[i]);
	if (n > 0)
		return 0;
	if (h->own && h->child) { /* how it ended is told in a moment */
		h->io = sd_event_source_disable_unref(h->io);
		return 0;
	}
	ended(h, NULL);
	return 0;
}

static int on_silent(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcWorkerHost *h = userdata;

	h->timer = sd_event_source_disable_unref(h->timer);
	if (h->phase == ADOPTING) /* it may hold the device: then that will be the complaint */
		disconnect(h);
	h->error = -ETIMEDOUT;
	g_strlcpy(h->text, "the worker does not answer", sizeof(h->text));
	retry_later(h, RETRY_USEC);
	h->ops->changed(h->userdata);
	return 0;
}

static void expect_answer(EcWorkerHost *h)
{
	uint64_t usec = h->phase == STARTING && !h->own ? BEGIN_USEC : ANSWER_USEC;

	if (h->timer || sd_event_add_time_relative(h->event, &h->timer, CLOCK_BOOTTIME, usec, 0,
					on_silent, h) < 0)
		return;
	/* Who was slow may be us: an answer that waits is read first. */
	(void)sd_event_source_set_priority(h->timer, SD_EVENT_PRIORITY_IDLE);
}

static int attend(EcWorkerHost *h, int control, Phase phase)
{
	h->control = control;
	h->phase = phase;
	int r = sd_event_add_io(h->event, &h->io, control, EPOLLIN, on_io, h);
	if (r < 0)
		disconnect(h);
	else
		expect_answer(h);
	return r;
}

/* Its beginning */

static int spawn(EcWorkerHost *h, sd_bus_error *ret_error)
{
	g_autofree char *program = ec_worker_program();
	char *const words[] = { program, NULL }, *const environment[] = { NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int pair[2];

	if (!program)
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"ethercord-worker is not installed");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attributes);
	/* Neither our blocked signals nor our session: what ends the daemon does not end it. */
	(void)sigemptyset(&none);
	(void)posix_spawnattr_setsigmask(&attributes, &none);
	(void)posix_spawnattr_setflags(
			&attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID));
	(void)posix_spawn_file_actions_adddup2(&actions, pair[1], EC_WORKER_FD);
	int r = -posix_spawn(&h->pid, program, &actions, &attributes, words, environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	(void)close(pair[1]);
	if (r < 0) {
		(void)close(pair[0]);
		h->pid = 0;
		(void)ec_error(ret_error, EC_ERROR_KERNEL, "%s cannot be started: %s", program,
				g_strerror(-r));
		return r;
	}
	h->own = true;
	if (sd_event_add_child(h->event, &h->child, h->pid, WEXITED, on_child, h) < 0)
		h->child = NULL;
	return pair[0];
}

static uint64_t now_usec(const EcWorkerHost *h)
{
	uint64_t now = 0;

	(void)sd_event_now(h->event, CLOCK_BOOTTIME, &now);
	return now;
}

/* Whether it may be started once more. */
static bool count_start(EcWorkerHost *h)
{
	uint64_t now = now_usec(h), *oldest = &h->starts[h->n_starts % MOST_STARTS];

	if (h->n_starts >= MOST_STARTS && now < *oldest + STARTS_USEC) {
		h->failing = true;
		h->socket = drop_fd(h->socket); /* nobody reads what it gets */
		retry_later(h, *oldest + STARTS_USEC - now);
		return false;
	}
	*oldest = now;
	h->n_starts++;
	return true;
}

static int rest(const EcWorkerHost *h, sd_bus_error *ret_error)
{
	return ec_error(ret_error, EC_ERROR_LIMIT_EXCEEDED,
			"%s; it was started %d times within a minute and rests for a while",
			*h->text ? h->text : "the worker ended", MOST_STARTS);
}

static int make_memory(EcWorkerHost *h)
{
	if (h->memory >= 0)
		return 0;
	h->memory = memfd_create("ethercord-worker", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (h->memory < 0)
		return -errno;
	if (ftruncate(h->memory, sizeof(EcWorkerStatistics)) < 0)
		return -errno;
	(void)fcntl(h->memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	map_memory(h);
	return 0;
}

static int start(EcWorkerHost *h, sd_bus_error *ret_error)
{
	EcWorkerStart m = { .type = EC_WORKER_START,
		.version = EC_WORKER_PROTOCOL,
		.serial = ++h->serial,
		.format = h->format };
	int r = make_memory(h);

	if (!count_start(h))
		return rest(h, ret_error);
	h->listener = drop_fd(h->listener);
	if (r >= 0)
		r = ec_worker_listen(h->directory, h->name);
	if (r < 0) {
		(void)ec_error(ret_error, EC_ERROR_KERNEL, "the worker cannot be started: %s",
				g_strerror(-r));
		return r;
	}
	h->listener = r;
	h->own = false;
	g_autofree char *beside = start_directory(h->directory);
	r = ec_worker_connect(beside, START);
	if (r < 0)
		r = spawn(h, ret_error);
	if (r < 0)
		return r;
	int control = r;
	const int fds[] = { h->listener, h->device, h->memory };
	g_strlcpy(m.name, h->name, sizeof(m.name));
	r = ec_worker_send(control, &m, sizeof(m), fds, EC_ELEMENTS(fds));
	/* It is the worker's alone: a daemon that connects is to meet nobody else. */
	h->listener = drop_fd(h->listener);
	if (r >= 0)
		r = attend(h, control, STARTING);
	else
		(void)close(control);
	if (r < 0)
		(void)ec_error(ret_error, EC_ERROR_KERNEL,
				"the worker cannot be told what to do: %s", g_strerror(-r));
	return r;
}

/* Once, when the daemon has just come to know the tunnel. */
static void look_for_one(EcWorkerHost *h)
{
	int fd = ec_worker_connect(h->directory, h->name);

	if (fd >= 0)
		(void)attend(h, fd, ADOPTING);
}

/* The interface of ours */

/* NOLINTNEXTLINE(readability-function-size): whose it is, what it carries, and who is told */
int ec_worker_host_new(sd_event *event, const char *directory, const char *name, uint32_t format,
		const EcWorkerOps *ops, void *userdata, EcWorkerHost **ret, sd_bus_error *ret_error)
{
	EcWorkerHost *h = g_new0(EcWorkerHost, 1);

	if (g_mkdir_with_parents(directory, 0700) < 0) {
		g_free(h);
		return ec_error(ret_error, EC_ERROR_KERNEL, "%s cannot be made: %s", directory,
				g_strerror(errno));
	}
	h->event = sd_event_ref(event);
	h->directory = g_strdup(directory);
	h->name = g_strdup(name);
	h->format = format;
	h->ops = ops;
	h->userdata = userdata;
	h->device = h->memory = h->listener = h->control = h->socket = -1;
	look_for_one(h);
	*ret = h;
	return 0;
}

EcWorkerHost *ec_worker_host_free(EcWorkerHost *h)
{
	if (!h)
		return NULL;
	disconnect(h);
	h->child = sd_event_source_disable_unref(h->child);
	h->retry = sd_event_source_disable_unref(h->retry);
	unmap_memory(h);
	h->device = drop_fd(h->device);
	h->socket = drop_fd(h->socket);
	(void)sd_event_unref(h->event);
	g_free(h->directory);
	g_free(h->name);
	g_free(h);
	return NULL;
}

static int on_buried(sd_event_source *s, const siginfo_t *si, void *userdata)
{
	(void)sd_event_source_disable_unref(s);
	return 0;
}

static void stop(EcWorkerHost *h)
{
	const uint32_t message = EC_WORKER_STOP;

	if (h->control >= 0)
		(void)ec_worker_send(h->control, &message, sizeof(message), NULL, 0);
	forget_paths(h->directory, h->name);
	h->socket = drop_fd(h->socket);
	if (h->child) { /* whoever else waits for it is not us any more */
		sd_event_source *buried = NULL;

		h->child = sd_event_source_disable_unref(h->child);
		(void)sd_event_add_child(h->event, &buried, h->pid, WEXITED, on_buried, NULL);
	}
	disconnect(h);
}

EcWorkerHost *ec_worker_host_end(EcWorkerHost *h)
{
	if (h)
		stop(h);
	return ec_worker_host_free(h);
}

void ec_worker_host_set_format(EcWorkerHost *h, uint32_t format)
{
	if (h->format == format)
		return;
	stop(h);
	h->format = format;
	h->n_starts = 0; /* it is us who end them */
}

int ec_worker_host_make_device(EcWorkerHost *h, const char *ifname, sd_bus_error *ret_error)
{
	if (h->device >= 0 && !ec_worker_device_is_there(h->device))
		h->device = drop_fd(h->device);
	if (h->device >= 0 || h->phase == ADOPTING)
		return 0;
	return ec_worker_device_open(ifname, h->format != EC_WORKER_TUN_UDP, &h->device, ret_error);
}

int ec_worker_host_keep_device(EcWorkerHost *h, sd_bus_error *ret_error)
{
	return h->device < 0 ? 0 : ec_worker_device_keep(h->device, ret_error);
}

static bool same_socket(const EcWorkerSocket *a, const EcWorkerSocket *b)
{
	return ec_address_equal(&a->local, &b->local) && a->port == b->port &&
	       a->ifindex == b->ifindex && g_str_equal(a->device, b->device) &&
	       a->mark == b->mark && a->ttl == b->ttl && a->tos == b->tos &&
	       a->fragment == b->fragment;
}

static bool same_spec(const EcWorkerSpec *a, const EcWorkerSpec *b)
{
	return same_socket(&a->socket, &b->socket) && ec_address_equal(&a->remote, &b->remote) &&
	       a->remote_port == b->remote_port && a->id == b->id && a->flags == b->flags &&
	       a->path_mtu == b->path_mtu;
}

static int send_spec(EcWorkerHost *h, const EcWorkerSpec *spec, sd_bus_error *ret_error)
{
	EcWorkerConfigure m = { .type = EC_WORKER_CONFIGURE,
		.serial = ++h->serial,
		.id = spec->id,
		.flags = spec->flags,
		.path_mtu = spec->path_mtu };
	/* The worker has it; or the one before it had. */
	bool has = h->sent && same_socket(&h->spec.socket, &spec->socket);
	bool had = !has && h->socket >= 0 && same_spec(&h->spec, spec);
	int fd = had ? h->socket : -1;
	int r = has || had ? 0 : ec_worker_socket_open(&spec->socket, &fd, ret_error);

	if (r < 0)
		return r;
	(void)ec_worker_sockaddr(&spec->remote, spec->remote_port, spec->socket.ifindex, &m.remote);
	r = ec_worker_send(h->control, &m, sizeof(m), &fd, fd >= 0 ? 1 : 0);
	if (fd >= 0 && !had) {
		(void)drop_fd(h->socket);
		h->socket = fd;
	}
	if (r < 0) {
		(void)ec_error(ret_error, EC_ERROR_KERNEL,
				"the worker cannot be told what to do: %s", g_strerror(-r));
		return r;
	}
	h->spec = *spec;
	h->sent = true;
	h->error = 0;
	save_spec(h);
	expect_answer(h);
	return 0;
}

int ec_worker_host_settle(EcWorkerHost *h, const char *ifname, const EcWorkerSpec *spec,
		sd_bus_error *ret_error)
{
	int r = 0;

	if (h->failing)
		return rest(h, ret_error);
	if (h->phase == ADOPTING)
		return 0;
	if (h->phase == IDLE) {
		r = ec_worker_host_make_device(h, ifname, ret_error);
		if (r >= 0)
			r = start(h, ret_error);
	}
	if (r >= 0 && h->sent && same_spec(&h->spec, spec)) {
		if (h->error)
			(void)ec_error(ret_error, EC_ERROR_KERNEL, "%s", h->text);
		return h->error;
	}
	if (r >= 0)
		r = send_spec(h, spec, ret_error);
	if (r == -EBUSY || r == -EADDRINUSE) /* nobody tells when they are free */
		retry_later(h, RETRY_USEC);
	return r;
}

bool ec_worker_host_inject(EcWorkerHost *h, const struct iovec *parts, size_t n)
{
	const uint32_t type = EC_WORKER_INJECT;
	struct iovec all[8] = { { .iov_base = (void *)&type, .iov_len = sizeof(type) } };
	const struct msghdr m = { .msg_iov = all, .msg_iovlen = n + 1 };

	if (h->phase != RUNNING || n >= EC_ELEMENTS(all))
		return false;
	memcpy(all + 1, parts, n * sizeof(*parts));
	return sendmsg(h->control, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

void ec_worker_host_statistics(const EcWorkerHost *h, EcWorkerStatistics *ret)
{
	if (h && h->statistics)
		*ret = *h->statistics;
	else
		*ret = (EcWorkerStatistics){ 0 };
}

pid_t ec_worker_host_pid(const EcWorkerHost *h)
{
	return h ? h->pid : 0;
}

void ec_worker_sweep(const char *directory, bool (*is_wanted)(const char *name, void *userdata),
		void *userdata)
{
	const uint32_t stop = EC_WORKER_STOP;
	g_autoptr(GDir) d = g_dir_open(directory, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		if (*name == '.' || is_wanted(name, userdata))
			continue;
		int fd = ec_worker_connect(directory, name);

		if (fd >= 0)
			(void)ec_worker_send(fd, &stop, sizeof(stop), NULL, 0);
		(void)drop_fd(fd);
		forget_paths(directory, name);
	}
}

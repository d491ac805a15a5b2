/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "worker-message.h"
#include "worker-process.h"
#include "worker-watch.h"

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
 * minute. A configuration that it refused is not sent again before RETRY_USEC, and a start for
 * which something lacked (memory, files, a place for the socket) is tried again after LACK_USEC.
 *
 * One that hangs is known by packets that wait while it does nothing (worker-watch.c), and by
 * questions that it does not answer: a CONFIGURE, HELLO, or ASK, which needs no change. It is
 * killed if it is a daemon's child; of others the number is not believed. They find STOP before
 * anything else should they ever go on. In any case the next one is started with all it had.
 *
 * It reads what strangers send, so it is not believed either: what it says is looked at before
 * anything here depends on it.
 */

#define START "ethercord-worker"
#define MOST_STARTS 5
#define STARTS_USEC 60000000ULL
#define ANSWER_USEC 2000000ULL
#define ASK_USEC 1000000ULL    /* and once more */
#define BEGIN_USEC 15000000ULL /* the same of one that systemd has to start first */
#define RETRY_USEC 1000000ULL
#define LACK_USEC 2000000ULL /* memory, files, processes: whoever has them does not tell */
/* Questions in a row that stay without an answer; at its beginning it may be slow. */
#define MOST_SILENCES 2
#define MOST_SILENCES_STARTING 5

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
	int device, memory;             /* -1: none */
	int socket;                     /* of `spec`, for the next worker; -1: none */
	EcWorkerStatistics *statistics; /* of memory, NULL: none */
	int control;                    /* the connection; -1 */
	pid_t pid;                      /* 0: not known */
	bool own;                       /* our child */
	pid_t killable;                 /* it is a child, maybe of an earlier daemon; 0 */
	uint64_t since;                 /* of that process */
	sd_event_source *io, *timer, *child, *retry;
	EcWorkerWatch *watch; /* while it runs */
	unsigned silences;    /* in a row */
	bool hung;            /* it is the cause of its end */
	EcWorkerSpec spec;    /* sent last */
	bool sent;
	uint32_t serial;
	int error; /* of the last answer, or of what was tried here */
	char text[EC_WORKER_TEXT];
	uint64_t starts[MOST_STARTS]; /* the last ones */
	unsigned n_starts;
	bool failing; /* restarted too often */
};

/* Paths */

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
	g_autofree char *path = g_build_filename(start, START, NULL);

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

static void unwatch(EcWorkerHost *h)
{
	h->watch = ec_worker_watch_free(h->watch);
}

static void disconnect(EcWorkerHost *h)
{
	h->io = sd_event_source_disable_unref(h->io);
	h->timer = sd_event_source_disable_unref(h->timer);
	unwatch(h);
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

static void save_note(const EcWorkerHost *h)
{
	EcWorkerNote note;

	memset(&note, 0, sizeof(note));
	note.version = EC_WORKER_PROTOCOL;
	note.serial = h->serial;
	note.spec = h->spec;
	note.pid = h->killable;
	note.since = h->since;
	ec_worker_note_save(h->directory, h->name, &note);
}

/* Whether the worker has the spec that is noted. */
static bool load_note(EcWorkerHost *h)
{
	EcWorkerNote note;

	h->killable = 0;
	if (!ec_worker_note_load(h->directory, h->name, &note))
		return false;
	h->killable = note.pid;
	h->since = note.since;
	h->spec = note.spec;
	return note.serial == h->serial;
}

/* Whether it hangs */

static void give_up(EcWorkerHost *h);
static void stop(EcWorkerHost *h);
static void expect_answer(EcWorkerHost *h);

static void on_ask(void *userdata)
{
	const EcWorkerHost *h = userdata;
	const uint32_t ask = EC_WORKER_ASK;

	(void)ec_worker_send(h->control, &ask, sizeof(ask), NULL, 0);
}

static void on_hangs(void *userdata)
{
	give_up(userdata);
}

static void watch(EcWorkerHost *h)
{
	static const EcWorkerWatchOps ops = { .ask = on_ask, .hangs = on_hangs };

	unwatch(h);
	if (h->statistics && h->device >= 0)
		(void)ec_worker_watch_new(
				h->event, h->device, h->socket, h->statistics, &ops, h, &h->watch);
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
	h->sent = load_note(h);
	if (!h->sent)
		h->socket = drop_fd(h->socket);
	h->phase = RUNNING;
	watch(h);
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
	if (last || begun)
		h->timer = sd_event_source_disable_unref(h->timer);
	if (last)
		watch(h);
	else if (begun)
		expect_answer(h);           /* of CONFIGURE: it is not slow any more */
	if (last && m->error == -EISCONN) { /* it takes a new socket to be less choosy */
		h->socket = drop_fd(h->socket);
		h->sent = false;
	} else if (m->error && (begun || last)) {
		h->error = m->error < 0 ? m->error : -EPROTO;
		ec_worker_clean(m->text, sizeof(m->text));
		g_strlcpy(h->text, m->text, sizeof(h->text));
		retry_later(h, RETRY_USEC);
	}
	if (m->error && begun) /* as for a device that was deleted: it has nothing */
		stop(h);
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
		unwatch(h);
		h->socket = drop_fd(h->socket);
		h->ops->changed(h->userdata);
		break;
	case EC_WORKER_DEVICE:
		unwatch(h);
		h->device = drop_fd(h->device);
		break;
	case EC_WORKER_HERE:
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

static void ended(EcWorkerHost *h, const siginfo_t *si)
{
	bool was = h->phase == RUNNING || h->phase == STARTING || h->hung;
	pid_t pid = h->pid ? h->pid : h->killable;
	g_autofree char *cause = ec_worker_process_cause(si, h->hung);

	h->child = sd_event_source_disable_unref(h->child);
	disconnect(h);
	if (was) {
		ec_log(LOG_WARNING, "the worker of %s (process %d) %s", h->name, pid, cause);
		tell(h, "worker-ended", "its worker (process %d) %s", pid, cause);
		g_snprintf(h->text, sizeof(h->text), "the worker %s", cause);
	}
	h->pid = h->killable = 0;
	h->hung = false;
	h->silences = 0;
	h->ops->changed(h->userdata);
}

/* It hangs. A child's end is told in a moment. */
static void give_up(EcWorkerHost *h)
{
	const uint32_t stop = EC_WORKER_STOP;

	h->hung = true;
	h->timer = sd_event_source_disable_unref(h->timer);
	unwatch(h);
	(void)ec_worker_send(h->control, &stop, sizeof(stop), NULL, 0);
	if (h->phase == ADOPTING)
		(void)load_note(h);
	if (ec_worker_process_kill(h->killable, h->since) < 0 || !h->child)
		ended(h, NULL);
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
	if (n > 0) {
		h->silences = 0;
		ec_worker_watch_heard(h->watch);
		take_message(h, &message, (size_t)n, fds);
	}
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
	if (++h->silences >= (h->phase == STARTING ? MOST_SILENCES_STARTING : MOST_SILENCES)) {
		give_up(h);
		return 0;
	}
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
	int r = ec_worker_process_spawn(&h->killable, ret_error);

	if (r < 0)
		return r;
	h->own = true;
	h->pid = h->killable;
	h->since = ec_worker_process_since(h->pid);
	if (sd_event_add_child(h->event, &h->child, h->pid, WEXITED, on_child, h) < 0)
		h->child = NULL;
	return r;
}

static uint64_t now_usec(const EcWorkerHost *h)
{
	uint64_t now = 0;

	(void)sd_event_now(h->event, CLOCK_BOOTTIME, &now);
	return now;
}

static bool may_start(EcWorkerHost *h)
{
	uint64_t now = now_usec(h), oldest = h->starts[h->n_starts % MOST_STARTS];

	if (h->n_starts < MOST_STARTS || now >= oldest + STARTS_USEC)
		return true;
	h->failing = true;
	h->socket = drop_fd(h->socket); /* nobody reads what it gets */
	retry_later(h, oldest + STARTS_USEC - now);
	return false;
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

	if (!may_start(h))
		return rest(h, ret_error);
	int r = g_mkdir_with_parents(h->directory, 0700) < 0 ? -errno : make_memory(h);
	int listener = -1;
	if (r >= 0)
		listener = r = ec_worker_listen(h->directory, h->name);
	if (r < 0) {
		(void)ec_error(ret_error, EC_ERROR_KERNEL, "the worker cannot be started: %s: %s",
				h->directory, g_strerror(-r));
		return r;
	}
	h->own = false;
	h->killable = 0;
	g_autofree char *beside = start_directory(h->directory);
	r = ec_worker_connect(beside, START);
	if (r < 0)
		r = spawn(h, ret_error);
	if (r < 0) {
		(void)drop_fd(listener);
		return r;
	}
	h->starts[h->n_starts++ % MOST_STARTS] = now_usec(h);
	const int fds[] = { listener, h->device, h->memory };
	g_strlcpy(m.name, h->name, sizeof(m.name));
	r = attend(h, r, STARTING);
	if (r >= 0)
		r = ec_worker_send(h->control, &m, sizeof(m), fds, EC_ELEMENTS(fds));
	/* It is the worker's alone: a daemon that connects is to meet nobody else. */
	(void)drop_fd(listener);
	if (r < 0 && r != -EPIPE) /* of one that is gone, the cause is told in a moment */
		disconnect(h);
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
	if (fd != -EAGAIN)
		return;
	/* It has not met those who came before us either: it hangs. */
	(void)load_note(h);
	(void)ec_worker_process_kill(h->killable, h->since);
}

/* The interface of ours */

EcWorkerHost *ec_worker_host_new(sd_event *event, const char *directory, const char *name,
		uint32_t format, const EcWorkerOps *ops, void *userdata)
{
	EcWorkerHost *h = g_new0(EcWorkerHost, 1);

	h->event = sd_event_ref(event);
	h->directory = g_strdup(directory);
	h->name = g_strdup(name);
	h->format = format;
	h->ops = ops;
	h->userdata = userdata;
	h->device = h->memory = h->control = h->socket = -1;
	look_for_one(h);
	return h;
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
	ec_worker_note_forget(h->directory, h->name);
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

static bool same_spec(const EcWorkerSpec *a, const EcWorkerSpec *b)
{
	return ec_worker_socket_same(&a->socket, &b->socket) &&
	       ec_address_equal(&a->remote, &b->remote) && a->remote_port == b->remote_port &&
	       a->id == b->id && a->flags == b->flags && a->path_mtu == b->path_mtu;
}

static int send_spec(EcWorkerHost *h, const EcWorkerSpec *spec, sd_bus_error *ret_error)
{
	EcWorkerConfigure m = { .type = EC_WORKER_CONFIGURE,
		.serial = ++h->serial,
		.id = spec->id,
		.flags = spec->flags,
		.path_mtu = spec->path_mtu };
	/* The worker has it; or the one before it had. */
	bool has = h->sent && ec_worker_socket_same(&h->spec.socket, &spec->socket);
	bool had = !has && h->socket >= 0 && same_spec(&h->spec, spec);
	int fd = had ? h->socket : -1;
	int r = has || had ? 0 : ec_worker_socket_open(&spec->socket, &fd, ret_error);

	if (r < 0)
		return r;
	(void)ec_worker_sockaddr(&spec->remote, spec->remote_port, spec->socket.ifindex, &m.remote);
	r = ec_worker_send(h->control, &m, sizeof(m), &fd, fd >= 0 ? 1 : 0);
	unwatch(h);
	if (fd >= 0 && !had) {
		(void)drop_fd(h->socket);
		h->socket = fd;
	}
	if (r < 0 && r != -EPIPE) {
		(void)ec_error(ret_error, EC_ERROR_KERNEL,
				"the worker cannot be told what to do: %s", g_strerror(-r));
		return r;
	}
	h->spec = *spec;
	h->sent = r >= 0; /* to one that is gone: told in a moment, and the next one gets it */
	h->error = 0;
	save_note(h);
	if (h->sent)
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
		if (r < 0 && r != -EOPNOTSUPP && r != -EBUSY)
			retry_later(h, LACK_USEC);
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
		ec_worker_note_forget(directory, name);
	}
}

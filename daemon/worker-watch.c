/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-watch.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "util.h"

/*
 * DOC: Theory of operation
 *
 * A worker that hangs says nothing, and asking now and then would wake two processes for nothing.
 * But one that hangs harms only when there is something to do, and of that the daemon can know: it
 * has the same device and socket open.
 *
 * The first packet after a pause ends the wait; then nobody looks for LOOK_USEC, whatever comes. If
 * something waits then and the worker has called neither side since, it is suspect. Else the next
 * packet is waited for. So traffic costs two wake-ups in LOOK_USEC, and silence none.
 *
 * Suspect is also who waits for a socket that takes no more: only the worker itself can tell, so it
 * is asked then. Twice: it may have been the machine that slept.
 */

#define LOOK_USEC 2000000ULL
#define ANSWER_USEC 1000000ULL
#define MOST_ASKED 2
#define SLACK_USEC 500000ULL

enum {
	DEVICE,
	SOCKET,
	SIDES
};

struct EcWorkerWatch {
	const EcWorkerStatistics *statistics;
	int fd[SIDES]; /* -1: none */
	sd_event_source *io[SIDES], *timer;
	uint64_t calls[SIDES]; /* at the first packet */
	unsigned asked;        /* since it was heard last */
	const EcWorkerWatchOps *ops;
	void *userdata;
};

static uint64_t calls(const EcWorkerWatch *w, int side)
{
	const uint64_t *counter =
			side == DEVICE ? &w->statistics->device_reads : &w->statistics->rx_calls;

	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static int on_first(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcWorkerWatch *w = userdata;

	for (int i = 0; i < SIDES; i++) {
		w->calls[i] = calls(w, i);
		if (w->io[i])
			(void)sd_event_source_set_enabled(w->io[i], SD_EVENT_OFF);
	}
	(void)sd_event_source_set_time_relative(w->timer, LOOK_USEC);
	(void)sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
	return 0;
}

static bool waits(const EcWorkerWatch *w, int side)
{
	struct pollfd p = { .fd = w->fd[side], .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & POLLIN) && calls(w, side) == w->calls[side];
}

static void go_on(EcWorkerWatch *w)
{
	w->asked = 0;
	(void)sd_event_source_set_enabled(w->timer, SD_EVENT_OFF);
	for (int i = 0; i < SIDES; i++) {
		if (w->io[i])
			(void)sd_event_source_set_enabled(w->io[i], SD_EVENT_ONESHOT);
	}
}

static int on_look(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcWorkerWatch *w = userdata;

	if (!w->asked && !waits(w, DEVICE) && !waits(w, SOCKET)) {
		go_on(w);
		return 0;
	}
	if (w->asked == MOST_ASKED) {
		w->ops->hangs(w->userdata); /* frees us */
		return 0;
	}
	w->asked++;
	(void)sd_event_source_set_time_relative(s, ANSWER_USEC);
	(void)sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	w->ops->ask(w->userdata);
	return 0;
}

void ec_worker_watch_heard(EcWorkerWatch *w)
{
	if (w && w->asked)
		go_on(w);
}

int ec_worker_watch_new(sd_event *event, int device, int socket,
		const EcWorkerStatistics *statistics, const EcWorkerWatchOps *ops, void *userdata,
		EcWorkerWatch **ret)
{
	EcWorkerWatch *w = g_new0(EcWorkerWatch, 1);
	const int from[SIDES] = { [DEVICE] = device, [SOCKET] = socket };
	int r = sd_event_add_time_relative(
			event, &w->timer, CLOCK_BOOTTIME, LOOK_USEC, SLACK_USEC, on_look, w);

	w->statistics = statistics;
	w->ops = ops;
	w->userdata = userdata;
	for (int i = 0; i < SIDES; i++) {
		w->fd[i] = from[i] < 0 ? -1 : fcntl(from[i], F_DUPFD_CLOEXEC, 3);
		if (r >= 0 && w->fd[i] >= 0)
			r = sd_event_add_io(event, &w->io[i], w->fd[i], EPOLLIN, on_first, w);
	}
	if (r < 0) {
		(void)ec_worker_watch_free(w);
		return r;
	}
	/* What the worker said is read before it is judged. */
	(void)sd_event_source_set_priority(w->timer, SD_EVENT_PRIORITY_IDLE);
	go_on(w);
	*ret = w;
	return 0;
}

EcWorkerWatch *ec_worker_watch_free(EcWorkerWatch *w)
{
	if (!w)
		return NULL;
	for (int i = 0; i < SIDES; i++) {
		(void)sd_event_source_disable_unref(w->io[i]);
		if (w->fd[i] >= 0)
			(void)close(w->fd[i]);
	}
	(void)sd_event_source_disable_unref(w->timer);
	g_free(w);
	return NULL;
}

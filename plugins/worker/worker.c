/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "connection.h"
#include "receive.h"
#include "transmit.h"

/*
 * DOC: Theory of operation
 *
 * One thread, one epoll, level-triggered, without timers: nothing wakes it but something to do
 * (and, for half a second, a piece whose fellows do not come). Each turn of the loop does what the
 * daemon asks first, then one bounded batch from the socket into the device (receive.c) and one
 * bounded batch from the device into the socket (transmit.c): neither direction starves the other,
 * and a lone packet is passed on at once. When the socket takes no more, the device is not read
 * until it does: the queue is then where the kernel can see it. Nor is it read before the first
 * CONFIGURE.
 *
 * All memory is had before the first packet.
 */

int ec_worker_watch(EcWorker *w, EcSource source, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.u32 = source };

	/* seccomp: epoll_ctl */
	return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int ec_worker_rewatch(EcWorker *w, EcSource source, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.u32 = source };

	return epoll_ctl(w->epoll, EPOLL_CTL_MOD, fd, &e) < 0 ? -errno : 0;
}

EcWorker *ec_worker_new(int control)
{
	EcWorker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->control = control;
	w->listener = w->device = w->memory = w->path.fd = -1;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->transmit = ec_transmit_new();
	w->receive = ec_receive_new(w);
	if (w->epoll >= 0 && w->transmit && w->receive &&
			ec_worker_watch(w, EC_SOURCE_CONTROL, control, EPOLLIN) == 0)
		return w;
	return ec_worker_free(w);
}

static void close_all(const EcWorker *w)
{
	const int fds[] = { w->control, w->listener, w->device, w->memory, w->path.fd, w->epoll };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]); /* seccomp: close */
	}
}

EcWorker *ec_worker_free(EcWorker *w)
{
	const int error = errno;

	if (w->statistics)
		(void)munmap(w->statistics, sizeof(*w->statistics)); /* seccomp: munmap */
	close_all(w);
	w->transmit = ec_transmit_free(w->transmit);
	w->receive = ec_receive_free(w->receive);
	free(w); /* seccomp: brk */
	errno = error;
	return NULL;
}

static void on_device(EcWorker *w, uint32_t events)
{
	if (events & EPOLLIN)
		ec_transmit_from_device(w);
	/* An error without anything to read: the device was deleted. */
	if ((events & EPOLLERR) && !(events & EPOLLIN))
		ec_transmit_check_device(w);
}

static void on_socket(EcWorker *w, uint32_t events)
{
	if (events & EPOLLERR)
		ec_receive_errors(w);
	if (events & EPOLLOUT)
		ec_transmit_to_socket(w);
	if (events & (EPOLLIN | EPOLLERR))
		ec_receive(w);
}

static void dispatch(EcWorker *w, const struct epoll_event *e)
{
	switch ((EcSource)e->data.u32) {
	case EC_SOURCE_CONTROL:
		ec_connection_read(w);
		break;
	case EC_SOURCE_LISTENER:
		ec_connection_accept(w);
		break;
	case EC_SOURCE_SOCKET:
		on_socket(w, e->events);
		break;
	case EC_SOURCE_DEVICE:
		on_device(w, e->events);
		break;
	}
}

int ec_worker_run(EcWorker *w)
{
	struct epoll_event events[4];

	while (!w->stop) {
		const int timeout = ec_receive_timeout(w);
		/* seccomp: epoll_wait epoll_pwait restart_syscall */
		const int n = epoll_wait(w->epoll, events, 4, timeout);

		if (n == 0)
			ec_receive_expire(w);
		for (int i = 0; i < n && !w->stop; i++)
			dispatch(w, &events[i]);
		if (w->device_gone && !w->stop) {
			ec_connection_event(w, EC_WORKER_DEVICE, -EBADFD, "the device is gone");
			w->status = EXIT_FAILURE;
			w->stop = true;
		}
	}
	return w->status; /* seccomp: exit_group */
}

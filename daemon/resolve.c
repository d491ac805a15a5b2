/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADDRESSES_MAX 16
#define CHILD_SECONDS 20 /* longer than the resolver's own 2 tries of 5 s */

struct EcResolve {
	pid_t pid;
	int fd;
	sd_event_source *source;
	EcResolved done;
	void *userdata;
};

static size_t collect(const struct addrinfo *list, EcAddress *found, size_t n)
{
	for (; list && n < ADDRESSES_MAX; list = list->ai_next) {
		const void *from = list->ai_family == AF_INET
						   ? (const void *)&((struct sockaddr_in *)(void *)
										     list->ai_addr)
								     ->sin_addr
						   : (const void *)&((struct sockaddr_in6 *)(void *)
										     list->ai_addr)
								     ->sin6_addr;
		if (list->ai_family != AF_INET && list->ai_family != AF_INET6)
			continue;
		found[n].family = list->ai_family;
		memcpy(found[n].bytes, from, ec_address_size(&found[n]));
		/* Who blocks a name says 0.0.0.0. */
		if (ec_address_is_unicast(&found[n]))
			n++;
	}
	return n;
}

_Noreturn static void child(int fd, char **names, int family)
{
	const struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_DGRAM };
	EcAddress found[ADDRESSES_MAX] = { 0 };
	size_t n = 0;
	sigset_t none;

	/* Nothing of the daemon may live on in here: not its end of the bus, not its signals. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(fd, 3) < 0)
		_exit(1);
	(void)close_range(4, ~0U, 0);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)alarm(CHILD_SECONDS);
	for (; *names; names++) {
		struct addrinfo *list = NULL;

		if (getaddrinfo(*names, NULL, &hints, &list) == 0)
			n = collect(list, found, n);
	}
	/* Less than PIPE_BUF: one write, whole or not at all. */
	_exit(n > 0 && write(3, found, n * sizeof(found[0])) < 0);
}

static int on_answer(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcAddress found[ADDRESSES_MAX];
	EcResolve *r = userdata;
	EcResolved done = r->done;
	void *data = r->userdata;

	ssize_t n = read(fd, found, sizeof(found));
	(void)sd_event_source_set_enabled(s, SD_EVENT_OFF);
	done(found, n > 0 ? (size_t)n / sizeof(found[0]) : 0, data);
	return 0;
}

int ec_resolve_new(sd_event *event, char **names, int family, EcResolved done, void *userdata,
		EcResolve **ret)
{
	EcResolve *r = g_new0(EcResolve, 1);
	int fd[2], error;

	r->fd = -1;
	r->done = done;
	r->userdata = userdata;
	if (pipe2(fd, O_CLOEXEC) < 0) {
		g_free(r);
		return -errno;
	}
	r->fd = fd[0];
	r->pid = fork();
	if (r->pid == 0)
		child(fd[1], names, family);
	error = r->pid < 0 ? -errno : 0;
	(void)close(fd[1]);
	if (error == 0)
		error = sd_event_add_io(event, &r->source, fd[0], EPOLLIN, on_answer, r);
	if (error < 0) {
		(void)ec_resolve_free(r);
		return error;
	}
	*ret = r;
	return 0;
}

EcResolve *ec_resolve_free(EcResolve *r)
{
	if (!r)
		return NULL;
	(void)sd_event_source_disable_unref(r->source);
	if (r->fd >= 0)
		(void)close(r->fd);
	if (r->pid > 0) {
		/* It has answered and is leaving, or its answer is not wanted any more. */
		(void)kill(r->pid, SIGKILL);
		(void)waitpid(r->pid, NULL, 0);
	}
	g_free(r);
	return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-message.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util.h"

/* A socket's address holds 107 bytes: the directory by its descriptor is always short enough. */
static int local_address(const char *directory, const char *name, int *ret_directory,
		struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*ret_directory < 0)
		return -errno;
	int n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s",
			*ret_directory, name);
	return n < (int)sizeof(ret->sun_path) ? 0 : -ENAMETOOLONG;
}

int ec_worker_connect(const char *directory, const char *name)
{
	struct sockaddr_un address;
	int d = -1, r = local_address(directory, name, &d, &address);
	int fd = r < 0 ? r : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		(void)close(fd);
		fd = r;
	} else if (fd < 0) {
		fd = r < 0 ? r : -errno;
	}
	if (d >= 0)
		(void)close(d);
	return fd;
}

int ec_worker_listen(const char *directory, const char *name)
{
	struct sockaddr_un address;
	int d = -1, r = local_address(directory, name, &d, &address);
	int fd = r < 0 ? r : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (d >= 0)
		(void)unlinkat(d, name, 0);
	if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
				       listen(fd, 4) < 0)) {
		r = -errno;
		(void)close(fd);
		fd = r;
	}
	if (d >= 0)
		(void)close(d);
	return fd;
}

int ec_worker_send(int socket, const void *message, size_t size, const int *fds, size_t n)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(EC_WORKER_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)message, .iov_len = size };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };

	if (n > 0) {
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, n * sizeof(int));
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

ssize_t ec_worker_receive(int socket, void *buffer, size_t size, int fds[static EC_WORKER_FDS])
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(EC_WORKER_FDS * sizeof(int))];
	} control;
	struct iovec part = { .iov_base = buffer, .iov_len = size };
	struct msghdr m = { .msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space) };

	for (size_t i = 0; i < EC_WORKER_FDS; i++)
		fds[i] = -1;
	ssize_t n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return n;
}

void ec_worker_clean(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

bool ec_worker_memory_is_whole(int fd, size_t size)
{
	int seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
	struct stat s;

	return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &s) == 0 &&
	       s.st_size >= (off_t)size;
}

char *ec_worker_program(void)
{
	static const char *const beside[] = { "ethercord-worker",
		"../plugins/worker/ethercord-worker", /* as built */
		"../../plugins/worker/ethercord-worker" };
	g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
	g_autofree char *directory = self ? g_path_get_dirname(self) : g_strdup("/");

	for (size_t i = 0; i < EC_ELEMENTS(beside); i++) {
		g_autofree char *path = g_build_filename(directory, beside[i], NULL);

		if (access(path, X_OK) == 0)
			return g_steal_pointer(&path);
	}
	return NULL;
}

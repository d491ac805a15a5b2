/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker.h"

static const char help[] =
		"ethercord-worker carries one tunnel's packets for ethercordd, which starts it.\n"
		"It has no settings of its own: file descriptor 3 tells it what to do.\n"
		"\n"
		"  --help     this text\n"
		"  --version  the version\n";

static bool is_control(int fd)
{
	int domain = 0, type = 0;
	socklen_t size = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

/* Nothing that was open by mistake stays; 0, 1 and 2 are something, so that no socket becomes
 * them. */
static void tidy_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > EC_WORKER_FD)
		(void)close(fd);
	(void)close_range(EC_WORKER_FD + 1, ~0U, 0);
}

int main(int argc, char *argv[])
{
	EcWorker *w;
	int status;

	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return fputs(help, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return puts("ethercord-worker " EC_VERSION) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (argc > 1) {
		fprintf(stderr,
				"ethercord-worker: unknown argument %s; there are --help and "
				"--version\n",
				argv[1]);
		return EXIT_FAILURE;
	}
	if (!is_control(EC_WORKER_FD)) {
		fputs("ethercord-worker: is not for starting by hand: ethercordd starts it for each "
		      "tunnel with data-plane=user\n",
				stderr);
		return EXIT_FAILURE;
	}
	tidy_descriptors();
	(void)fcntl(EC_WORKER_FD, F_SETFD, FD_CLOEXEC);
	(void)signal(SIGPIPE, SIG_IGN);
	w = ec_worker_new(EC_WORKER_FD);
	if (!w) {
		fprintf(stderr, "ethercord-worker: cannot start: %s\n", strerror(errno));
		return EXIT_FAILURE;
	}
	status = ec_worker_run(w);
	(void)ec_worker_free(w);
	return status;
}

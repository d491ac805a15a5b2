/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker-process.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker-message.h"

static char *note_path(const char *directory, const char *name)
{
	g_autofree char *hidden = g_strconcat(".", name, NULL);

	return g_build_filename(directory, hidden, NULL);
}

void ec_worker_note_save(const char *directory, const char *name, const EcWorkerNote *note)
{
	g_autofree char *path = note_path(directory, name);

	(void)g_file_set_contents_full(path, (const char *)note, sizeof(*note),
			G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL);
}

bool ec_worker_note_load(const char *directory, const char *name, EcWorkerNote *ret)
{
	g_autofree char *path = note_path(directory, name), *bytes = NULL;
	gsize n = 0;

	if (!g_file_get_contents(path, &bytes, &n, NULL) || n != sizeof(*ret))
		return false;
	memcpy(ret, bytes, sizeof(*ret));
	return ret->version == EC_WORKER_PROTOCOL;
}

void ec_worker_note_forget(const char *directory, const char *name)
{
	g_autofree char *path = g_build_filename(directory, name, NULL);
	g_autofree char *note = note_path(directory, name);

	(void)unlink(path);
	(void)unlink(note);
}

int ec_worker_process_spawn(pid_t *ret, sd_bus_error *ret_error)
{
	g_autofree char *program = ec_worker_program();
	char *const words[] = { program, NULL }, *const environment[] = { NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int pair[2], r = 0;

	if (!program)
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"ethercord-worker is not installed");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		r = -errno;
		(void)ec_error(ret_error, EC_ERROR_KERNEL, "the worker cannot be started: %s",
				g_strerror(-r));
		return r;
	}
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attributes);
	/* Neither our blocked signals nor our session: what ends the daemon does not end it. */
	(void)sigemptyset(&none);
	(void)posix_spawnattr_setsigmask(&attributes, &none);
	(void)posix_spawnattr_setflags(
			&attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID));
	(void)posix_spawn_file_actions_adddup2(&actions, pair[1], EC_WORKER_FD);
	r = -posix_spawn(ret, program, &actions, &attributes, words, environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	(void)close(pair[1]);
	if (r == 0)
		return pair[0];
	(void)close(pair[0]);
	*ret = 0;
	(void)ec_error(ret_error, EC_ERROR_KERNEL, "%s cannot be started: %s", program,
			g_strerror(-r));
	return r;
}

/* Field 22 of /proc/PID/stat; the name before may have blanks and brackets in it (proc(5)). */
uint64_t ec_worker_process_since(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *text = NULL;

	if (pid <= 0 || !g_file_get_contents(path, &text, NULL, NULL))
		return 0;
	const char *after = strrchr(text, ')');
	g_auto(GStrv) fields = g_strsplit(after ? after : "", " ", 22);

	return g_strv_length(fields) == 22 ? g_ascii_strtoull(fields[20], NULL, 10) : 0;
}

int ec_worker_process_kill(pid_t pid, uint64_t since)
{
	/* From here on it is this process and no other. */
	int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	if (fd < 0)
		return pid > 0 ? -errno : -ESRCH;
	int r = since && ec_worker_process_since(pid) == since ? 0 : -ESRCH;
	if (r == 0 && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0)
		r = -errno;
	(void)close(fd);
	return r;
}

char *ec_worker_process_cause(const siginfo_t *si, bool hung)
{
	if (hung)
		return g_strdup("hung: packets waited, and it did not answer");
	if (!si)
		return g_strdup("ended");
	return si->si_code == CLD_EXITED
			       ? g_strdup_printf("exited with status %d", si->si_status)
			       : g_strdup_printf("was killed by signal %d (%s)", si->si_status,
						 g_strsignal(si->si_status));
}

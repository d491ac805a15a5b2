/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker-syscalls.h"

/*
 * DOC: Theory of operation
 *
 * The worker reads what strangers send. Were it taken over, it should be worth nothing: it keeps
 * its descriptors - one device, one socket bound to one port, the daemon's connection - and can
 * open no other: no file, no socket, no program.
 *
 * The list of system calls grows from the sources: worker-syscalls.h is made by syscalls.awk from
 * the comments beside the calls, so a call that somebody adds and does not name ends the process in
 * the first test that makes it.
 */

#define USER "ethercord-worker"
#define NOBODY 65534
/* A dozen would do for itself. But what all workers of one user have under way to daemons counts by
 * it, too (unix(7), ETOOMANYREFS): three for each that a daemon which starts connects to. */
#define OPEN_FILES 4096

static int find_user(uid_t *ret_uid, gid_t *ret_gid)
{
	const struct passwd *p = getpwnam(USER);

	if (!p)
		p = getpwnam("nobody");
	*ret_uid = p ? p->pw_uid : NOBODY;
	*ret_gid = p ? p->pw_gid : NOBODY;
	return *ret_uid && *ret_gid ? 0 : -EPERM;
}

/* A directory that is gone: nothing is in it, and nothing can be put there. Where that cannot be
 * had, the system calls that take a path are forbidden all the same. */
static void leave_filesystem(void)
{
	static const char *const places[] = { "/run/ethercord-XXXXXX", "/tmp/ethercord-XXXXXX" };

	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char path[32];
		int fd;

		(void)snprintf(path, sizeof(path), "%s", places[i]);
		if (!mkdtemp(path))
			continue;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void)rmdir(path);
		if (fd < 0)
			continue;
		if (fchdir(fd) == 0)
			(void)chroot(".");
		(void)close(fd);
		return;
	}
}

static int become_nobody(const char **ret_text)
{
	uid_t uid;
	gid_t gid;
	int r;

	if (geteuid() != 0)
		return 0;
	*ret_text = "there is no unprivileged user";
	r = find_user(&uid, &gid);
	if (r < 0)
		return r;
	leave_filesystem();
	*ret_text = "cannot become an unprivileged user";
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	return 0;
}

static int drop_capabilities(const char **ret_text)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	*ret_text = "cannot drop capabilities";
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

static void drop_bounding_set(void)
{
	for (unsigned long c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
		(void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
}

static int limit(const char **ret_text)
{
	static const struct {
		__rlimit_resource_t what;
		rlim_t value;
	} limits[] = {
		{ RLIMIT_FSIZE, 0 },
		{ RLIMIT_CORE, 0 },
		{ RLIMIT_NPROC, 0 },
		{ RLIMIT_NOFILE, OPEN_FILES },
	};

	*ret_text = "cannot set limits";
	for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct rlimit value;

		if (getrlimit(limits[i].what, &value) < 0)
			return -errno;
		if (value.rlim_max > limits[i].value)
			value.rlim_max = limits[i].value;
		value.rlim_cur = value.rlim_max;
		if (setrlimit(limits[i].what, &value) < 0)
			return -errno;
	}
	return 0;
}

/* Sanitizers need system calls of their own. */
#ifdef EC_SANITIZED
static int filter(const char **ret_text)
{
	*ret_text = "";
	return 0;
}
#else
static int filter(const char **ret_text)
{
	static const int calls[] = { EC_WORKER_SYSCALLS };
	scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = context ? 0 : -ENOMEM;

	*ret_text = "cannot restrict system calls";
	for (unsigned i = 0; r == 0 && i < sizeof(calls) / sizeof(calls[0]); i++) {
		/* Negative: this machine does not have it. */
		if (calls[i] >= 0)
			r = seccomp_rule_add(context, SCMP_ACT_ALLOW, calls[i], 0);
	}
	if (r == 0)
		r = seccomp_load(context);
	seccomp_release(context);
	return r;
}
#endif

int ec_sandbox(const char **ret_text)
{
	int r;

	drop_bounding_set();
	r = become_nobody(ret_text);
	if (r == 0)
		r = drop_capabilities(ret_text);
	if (r == 0)
		r = limit(ret_text);
	if (r < 0)
		return r;
	*ret_text = "cannot give up privileges";
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return filter(ret_text);
}

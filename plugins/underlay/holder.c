/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * DOC: Theory of operation
 *
 * Proof is a line "iff: tun0" in /proc/PID/fdinfo. It takes the right to trace that process, which
 * the daemon has as root but not in its sandbox: an own user with CAP_NET_ADMIN only.
 *
 * Without proof there is what everybody may read: names of processes, their capabilities, and their
 * network namespace (/proc/PID/net needs no right, and the inode number of a file in it is the
 * namespace's own; /proc/PID/ns/net needs one). A VPN program whose open files are hidden may be
 * the holder. It is taken for it only if no other VPN program may be, and if it has a process for
 * each interface of that sort: then nobody else can hold one. Programs whose interfaces have names
 * of their own ("tailscale0") do not come into question for others.
 *
 * Doubt means no: the user then names the interface, underlay=device:IFNAME.
 */

#define LINKS_MAX 64
#define FORGET_USEC 2000000 /* a look at all processes, at most that often for one interface */
#define SYSTEM_UIDS 1000    /* and 61184...65534: DynamicUser=, nobody */
#define HIGH_UIDS_FROM 61184
#define HIGH_UIDS_TO 65534

static const EcVpnProgram programs[] = {
	{ "openvpn", "openvpn", "OpenVPN", NULL },
	/* strongSwan without IPsec in the kernel (libipsec) */
	{ "charon", "ipsec", "IPsec", "ipsec" },
	{ "charon-systemd", "ipsec", "IPsec", "ipsec" },
	{ "charon-nm", "ipsec", "IPsec", NULL },
	{ "tailscaled", "route", "Tailscale", "tailscale" },
	{ "zerotier-one", "route", "ZeroTier", "zt" },
	{ "nebula", "route", "Nebula", "nebula" },
	{ "netbird", "route", "NetBird", "wt" },
	{ "warp-svc", "route", "WARP", "CloudflareWARP" },
	{ "openconnect", "route", "OpenConnect", NULL },
	{ "vpnc", "route", "vpnc", NULL },
	{ "fastd", "route", "fastd", NULL },
	{ "tincd", "route", "tinc", NULL },
	{ "edge", "route", "n2n", NULL },
	{ "wireguard-go", "route", "WireGuard", NULL },
	{ "boringtun", "route", "WireGuard", NULL },
	{ "boringtun-cli", "route", "WireGuard", NULL },
};

const EcVpnProgram *ec_vpn_program(const char *comm)
{
	for (size_t i = 0; i < EC_ELEMENTS(programs); i++) {
		if (g_str_equal(programs[i].comm, comm))
			return &programs[i];
	}
	return NULL;
}

/* Processes */

/* The file's beginning as text; false when it cannot be read. */
static bool read_at(int dir, const char *file, char *buffer, size_t size)
{
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	ssize_t n = read(fd, buffer, size - 1);
	(void)close(fd);
	buffer[MAX(n, 0)] = '\0';
	return n > 0;
}

static bool read_comm(int process, char comm[static 32])
{
	if (!read_at(process, "comm", comm, 32))
		return false;
	comm[strcspn(comm, "\n")] = '\0';
	return true;
}

static bool in_our_namespace(int process)
{
	struct stat ours, theirs;

	return stat("/proc/self/net/dev", &ours) == 0 &&
	       fstatat(process, "net/dev", &theirs, 0) == 0 && ours.st_ino == theirs.st_ino &&
	       ours.st_dev == theirs.st_dev;
}

static bool is_child_of_its_like(const char *status, const char *comm)
{
	const char *line = strstr(status, "\nPPid:\t");
	char path[32], parent[32] = "";
	int dir;

	if (!line)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%d", atoi(line + strlen("\nPPid:\t")));
	dir = open(path, O_DIRECTORY | O_PATH | O_CLOEXEC);
	if (dir < 0)
		return false;
	bool like = read_comm(dir, parent) && g_str_equal(parent, comm);
	(void)close(dir);
	return like;
}

/* Could this process make an interface? Anybody can name a process like a VPN; that takes the right
 * to configure the network, or to have had it: VPN programs drop to a user of the system. Helpers
 * that the program forked do not count: they hold nothing. */
static bool is_plausible(int process, const char *comm)
{
	char status[4096];

	if (!read_at(process, "status", status, sizeof(status)) ||
			is_child_of_its_like(status, comm))
		return false;
	const char *uid = strstr(status, "\nUid:\t"), *caps = strstr(status, "\nCapPrm:\t");
	if (!uid || !caps)
		return false;
	unsigned long id = strtoul(uid + strlen("\nUid:\t"), NULL, 10);
	uint64_t permitted = strtoull(caps + strlen("\nCapPrm:\t"), NULL, 16);
	return id < SYSTEM_UIDS || (id >= HIGH_UIDS_FROM && id <= HIGH_UIDS_TO) ||
	       permitted & 1ULL << CAP_NET_ADMIN;
}

bool ec_fdinfo_names(const char *text, const char *ifname)
{
	const char *line = g_str_has_prefix(text, "iff:") ? text : strstr(text, "\niff:");

	if (!line)
		return false;
	line = strchr(line, ':') + 1;
	line += strspn(line, " \t");
	size_t n = strcspn(line, "\n");
	return n == strlen(ifname) && strncmp(line, ifname, n) == 0;
}

/* Whether the process holds the interface: 1, 0, or -EACCES when it hides that. */
static int holds(int process, const char *ifname)
{
	int fd = openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd);
		return -EACCES;
	}
	while (r == 0 && (e = readdir(dir))) {
		char target[64] = "", name[280], text[1024];

		if (e->d_name[0] == '.')
			continue;
		if (readlinkat(fd, e->d_name, target, sizeof(target) - 1) < 0) {
			r = errno == ENOENT ? 0 : -EACCES;
			continue;
		}
		/* /dev/net/tun, wherever their /dev is */
		if (!g_str_has_suffix(target, "/tun"))
			continue;
		(void)snprintf(name, sizeof(name), "fdinfo/%s", e->d_name);
		if (read_at(process, name, text, sizeof(text)))
			r = ec_fdinfo_names(text, ifname);
		else if (errno != ENOENT)
			r = -EACCES;
	}
	(void)closedir(dir);
	return r;
}

/* Calls f with each process until it says true. */
static bool for_each_process(
		bool (*f)(int process, const char *comm, void *userdata), void *userdata)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	bool found = false;

	if (!proc)
		return false;
	while (!found && (e = readdir(proc))) {
		char comm[32];

		if (!g_ascii_isdigit(e->d_name[0]))
			continue;
		int dir = openat(dirfd(proc), e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			continue;
		found = read_comm(dir, comm) && f(dir, comm, userdata);
		(void)close(dir);
	}
	(void)closedir(proc);
	return found;
}

static bool is_running(int process, const char *comm, void *userdata)
{
	return g_str_equal(comm, userdata) && in_our_namespace(process) &&
	       is_plausible(process, comm);
}

const char *ec_vpn_program_runs(const char *const *comms)
{
	for (; *comms; comms++) {
		if (for_each_process(is_running, (gpointer)*comms))
			return *comms;
	}
	return NULL;
}

/* Evidence */

void ec_holder_weigh(EcHolderEvidence *e, const char *ifname, const EcVpnProgram *program)
{
	const EcVpnProgram *before = e->program;
	bool own_name = program->prefix && g_str_has_prefix(ifname, program->prefix);

	if (program->prefix && !own_name)
		return;
	if (before && before->prefix && !own_name)
		return; /* the interface has the other one's own name */
	if (before && own_name && !before->prefix) {
		*e = (EcHolderEvidence){ 0 };
		before = NULL;
	}
	e->several |= before && before != program;
	e->program = program;
	e->processes++;
}

typedef struct Search {
	const char *ifname;
	bool all; /* else only VPN programs */
	char comm[32];
	EcHolderEvidence evidence;
} Search;

static bool look_at(int process, const char *comm, void *userdata)
{
	const EcVpnProgram *program = ec_vpn_program(comm);
	Search *s = userdata;

	if ((!program && !s->all) || !in_our_namespace(process))
		return false;
	int r = holds(process, s->ifname);
	if (r > 0)
		g_strlcpy(s->comm, comm, sizeof(s->comm));
	if (r < 0 && program && is_plausible(process, comm))
		ec_holder_weigh(&s->evidence, s->ifname, program);
	return r > 0;
}

typedef struct Tuns {
	const char *ifname;
	int mode;           /* of that interface */
	unsigned counts[4]; /* by mode, IFF_TUN and IFF_TAP: those that somebody may hold */
} Tuns;

int ec_tun_mode(const EcLink *link)
{
	struct nlattr *tb[IFLA_TUN_MAX + 1];

	if (!g_str_equal(link->kind, "tun") || !link->data ||
			nla_parse_nested(tb, IFLA_TUN_MAX, link->data, NULL) < 0 ||
			!tb[IFLA_TUN_TYPE] || nla_len(tb[IFLA_TUN_TYPE]) < 1)
		return 0;
	uint8_t mode = nla_get_u8(tb[IFLA_TUN_TYPE]);
	return mode == IFF_TUN || mode == IFF_TAP ? mode : 0;
}

static int count_tun(struct nlmsghdr *h, void *userdata)
{
	Tuns *tuns = userdata;
	g_auto(EcLink) link = { 0 };

	if (ec_link_parse(h, &link) < 0)
		return 0;
	int mode = ec_tun_mode(&link);
	if (g_str_equal(link.name, tuns->ifname))
		tuns->mode = mode;
	/* Up without carrier: nobody holds it. */
	if (link.group != EC_LINK_GROUP && (!(link.flags & IFF_UP) || link.flags & IFF_RUNNING))
		tuns->counts[mode & 3]++;
	return 0;
}

/* How many interfaces of the same sort there are that somebody may hold. */
static unsigned count_alike(const char *ifname)
{
	struct ifinfomsg ifi = { 0 };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
	Tuns tuns = { .ifname = ifname };
	EcNetlinkAnswer a = { .on_message = count_tun, .userdata = &tuns };
	struct nl_sock *sk = NULL;

	int r = msg && nlmsg_append(msg, &ifi, sizeof(ifi), NLMSG_ALIGNTO) >= 0
				? ec_netlink_open(NETLINK_ROUTE, &sk)
				: -ENOBUFS;
	if (r >= 0)
		r = ec_netlink_exchange(sk, msg, &a);
	nl_socket_free(sk);
	return r < 0 || !tuns.mode ? UINT_MAX : tuns.counts[tuns.mode & 3];
}

static bool search(const char *ifname, bool all, char comm[static 32])
{
	Search s = { .ifname = ifname, .all = all };
	const EcHolderEvidence *e = &s.evidence;

	if (for_each_process(look_at, &s)) {
		g_strlcpy(comm, s.comm, 32);
		return true;
	}
	if (!e->program || e->several ||
			(!e->program->prefix && e->processes < count_alike(ifname)))
		return false;
	g_strlcpy(comm, e->program->comm, 32);
	return true;
}

bool ec_tun_holder(const char *ifname, char comm[static 32])
{
	return search(ifname, true, comm);
}

const EcVpnProgram *ec_tun_holder_program(const char *ifname)
{
	char comm[32];

	return search(ifname, false, comm) ? ec_vpn_program(comm) : NULL;
}

/* What was found */

typedef struct Found {
	char name[IF_NAMESIZE];
	unsigned flags;
	gint64 time;
	const EcVpnProgram *program;
} Found;

struct EcHolders {
	GHashTable *by_ifindex; /* Found */
};

EcHolders *ec_holders_new(void)
{
	EcHolders *h = g_new0(EcHolders, 1);

	h->by_ifindex = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	return h;
}

EcHolders *ec_holders_free(EcHolders *h)
{
	if (h)
		g_hash_table_unref(h->by_ifindex);
	g_free(h);
	return NULL;
}

/* Whether what was found before still holds. */
static bool is_fresh(const Found *f, const EcLink *link)
{
	unsigned changed = (f->flags ^ link->flags) & (IFF_UP | IFF_RUNNING);

	if (!g_str_equal(f->name, link->name))
		return false;
	if (f->program)
		return !changed || !(link->flags & IFF_RUNNING);
	return !changed && g_get_monotonic_time() - f->time < FORGET_USEC;
}

const EcVpnProgram *ec_holders_find(EcHolders *h, const EcLink *link)
{
	gpointer key = GINT_TO_POINTER(link->ifindex);
	Found *f = g_hash_table_lookup(h->by_ifindex, key);

	if (!ec_tun_mode(link) || link->group == EC_LINK_GROUP)
		return NULL;
	if (f && is_fresh(f, link)) {
		f->flags = link->flags;
		return f->program;
	}
	if (!f) {
		/* Those that are gone are not told of. */
		if (g_hash_table_size(h->by_ifindex) >= LINKS_MAX)
			g_hash_table_remove_all(h->by_ifindex);
		f = g_new0(Found, 1);
		g_hash_table_insert(h->by_ifindex, key, f);
	}
	g_strlcpy(f->name, link->name, sizeof(f->name));
	f->flags = link->flags;
	f->time = g_get_monotonic_time();
	f->program = ec_tun_holder_program(link->name);
	return f->program;
}

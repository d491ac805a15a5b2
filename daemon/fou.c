/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fou.h"

#include <errno.h>
#include <linux/fou.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * A port that we opened is marked by a file in the runtime directory: after a crash the mark says
 * that the port is ours to close.
 */

typedef struct Port {
	unsigned holders;
	bool ours;
} Port;

struct EcFou {
	struct nl_sock *generic;
	char *directory;
	GHashTable *ports; /* name_of() -> Port */
};

EcFou *ec_fou_new(struct nl_sock *generic, const char *runtime_dir)
{
	EcFou *f = g_new0(EcFou, 1);

	f->generic = generic;
	f->directory = g_build_filename(runtime_dir, "fou", NULL);
	f->ports = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	return f;
}

EcFou *ec_fou_free(EcFou *f)
{
	if (!f)
		return NULL;
	g_hash_table_unref(f->ports);
	g_free(f->directory);
	g_free(f);
	return NULL;
}

/* Unique for what the kernel tells ports apart by; a file name. */
static char *name_of(const EcFouPort *p)
{
	char text[INET6_ADDRSTRLEN];

	return g_strdup_printf(
			"%u-%s-%d", p->port, ec_address_to_string(&p->local, text), p->ifindex);
}

static void load_module(const char *name)
{
	/* "fou" and "fou6" have no alias the kernel would load them by. Without the right to load
	 * (our unit has systemd do it) the kernel's own refusal follows. */
	const char *argv[] = { "modprobe", "-q", name, NULL };
	static char *const none[] = { NULL };
	pid_t pid;

	if (posix_spawn(&pid, "/sbin/modprobe", NULL, NULL, (char *const *)argv, none) == 0)
		(void)waitpid(pid, NULL, 0);
}

static int fou_family(EcFou *f)
{
	int id = genl_ctrl_resolve(f->generic, FOU_GENL_NAME);

	if (id < 0) {
		load_module("fou");
		id = genl_ctrl_resolve(f->generic, FOU_GENL_NAME);
	}
	return id < 0 ? -EOPNOTSUPP : id;
}

static int put_binding(struct nl_msg *msg, const EcFouPort *p)
{
	const EcAddress any = { .family = p->local.family };
	bool v6 = p->local.family == AF_INET6;

	if (!ec_address_equal(&p->local, &any) &&
			nla_put(msg, v6 ? FOU_ATTR_LOCAL_V6 : FOU_ATTR_LOCAL_V4,
					(int)ec_address_size(&p->local), p->local.bytes) < 0)
		return -ENOBUFS;
	return p->ifindex ? nla_put_s32(msg, FOU_ATTR_IFINDEX, p->ifindex) : 0;
}

static struct nl_msg *fou_message(int id, uint8_t command, const EcFouPort *p)
{
	g_autoptr(EcMessage) msg = nlmsg_alloc();

	if (!msg ||
			!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, id, 0,
					NLM_F_REQUEST | NLM_F_ACK, command, FOU_GENL_VERSION) ||
			nla_put_u16(msg, FOU_ATTR_PORT, htons(p->port)) < 0 ||
			nla_put_u8(msg, FOU_ATTR_AF, (uint8_t)p->local.family) < 0 ||
			put_binding(msg, p) < 0)
		return NULL;
	return g_steal_pointer(&msg);
}

static int take_fou(struct nlmsghdr *h, void *userdata)
{
	struct nlattr *tb[FOU_ATTR_MAX + 1];

	if (genlmsg_parse(h, 0, tb, FOU_ATTR_MAX, NULL) < 0)
		return -EBADMSG;
	*(bool *)userdata = tb[FOU_ATTR_IPPROTO] && nla_get_u8(tb[FOU_ATTR_IPPROTO]) == IPPROTO_GRE;
	return 0;
}

static bool port_serves_gre(EcFou *f, int id, const EcFouPort *p)
{
	bool gre = false;
	EcNetlinkAnswer a = { .on_message = take_fou, .userdata = &gre };
	g_autoptr(EcMessage) msg = fou_message(id, FOU_CMD_GET, p);

	return msg && ec_netlink_exchange(f->generic, msg, &a) >= 0 && gre;
}

/* Whether somebody's port, bound like this or not at all, serves GRE. */
static bool serves_gre(EcFou *f, int id, const EcFouPort *p)
{
	const EcFouPort unbound = { .port = p->port, .local.family = p->local.family };

	return port_serves_gre(f, id, p) || port_serves_gre(f, id, &unbound);
}

/* 1: opened, 0: was open for GRE already, or -errno. */
static int fou_open(EcFou *f, const EcFouPort *p, sd_bus_error *ret_error)
{
	EcNetlinkAnswer a = { 0 };
	int id = fou_family(f);

	if (id < 0)
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"this kernel has no foo-over-UDP (module fou)");
	if (p->local.family == AF_INET6)
		load_module("fou6");
	g_autoptr(EcMessage) msg = fou_message(id, FOU_CMD_ADD, p);
	if (!msg || nla_put_u8(msg, FOU_ATTR_IPPROTO, IPPROTO_GRE) < 0 ||
			nla_put_u8(msg, FOU_ATTR_TYPE, FOU_ENCAP_DIRECT) < 0)
		return -ENOBUFS;
	int r = ec_netlink_exchange(f->generic, msg, &a);
	if (r >= 0)
		return 1;
	if ((r == -EADDRINUSE || r == -EALREADY) && serves_gre(f, id, p))
		return 0;
	if (r == -EADDRINUSE || r == -EALREADY)
		return ec_error(ret_error, EC_ERROR_BUSY,
				"UDP port %u is in use by another program; choose another data-port",
				p->port);
	return ec_netlink_fail(
			r, &a, ret_error, "the kernel refused foo-over-UDP port %u", p->port);
}

int ec_fou_ref(EcFou *f, const EcFouPort *port, sd_bus_error *ret_error)
{
	g_autofree char *name = name_of(port);
	Port *p = g_hash_table_lookup(f->ports, name);

	if (!p) {
		int r = fou_open(f, port, ret_error);
		if (r < 0)
			return r;
		g_autofree char *mark = g_build_filename(f->directory, name, NULL);
		if (r > 0) {
			(void)g_mkdir_with_parents(f->directory, 0755);
			(void)g_file_set_contents(mark, "", 0, NULL);
		}
		p = g_new0(Port, 1);
		p->ours = r > 0 || access(mark, F_OK) == 0;
		g_hash_table_insert(f->ports, g_steal_pointer(&name), p);
	}
	p->holders++;
	return 0;
}

static void fou_close(EcFou *f, const char *name, const EcFouPort *port)
{
	EcNetlinkAnswer a = { 0 };
	int id = fou_family(f);
	g_autoptr(EcMessage) msg = id < 0 ? NULL : fou_message(id, FOU_CMD_DEL, port);
	g_autofree char *mark = g_build_filename(f->directory, name, NULL);

	if (msg)
		(void)ec_netlink_exchange(f->generic, msg, &a);
	(void)unlink(mark);
}

void ec_fou_unref(EcFou *f, const EcFouPort *port)
{
	g_autofree char *name = name_of(port);
	Port *p = g_hash_table_lookup(f->ports, name);

	if (!p || --p->holders > 0)
		return;
	if (p->ours)
		fou_close(f, name, port);
	g_hash_table_remove(f->ports, name);
}

/* The port that a mark is of. */
static bool parse_name(const char *name, EcFouPort *ret)
{
	g_auto(GStrv) part = g_strsplit(name, "-", 3);
	guint64 port = 0, ifindex = 0;

	if (g_strv_length(part) != 3 ||
			!g_ascii_string_to_unsigned(part[0], 10, 1, UINT16_MAX, &port, NULL) ||
			ec_address_from_string(part[1], &ret->local) < 0 ||
			!g_ascii_string_to_unsigned(part[2], 10, 0, INT32_MAX, &ifindex, NULL))
		return false;
	ret->port = (uint16_t)port;
	ret->ifindex = (int)ifindex;
	return true;
}

void ec_fou_sweep(EcFou *f)
{
	g_autoptr(GDir) dir = g_dir_open(f->directory, 0, NULL);
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	const char *name;

	while (dir && (name = g_dir_read_name(dir)))
		g_ptr_array_add(names, g_strdup(name));
	for (guint i = 0; i < names->len; i++) {
		EcFouPort port = { 0 };

		name = g_ptr_array_index(names, i);
		if (!g_hash_table_contains(f->ports, name) && parse_name(name, &port))
			fou_close(f, name, &port);
	}
}

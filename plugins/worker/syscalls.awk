# SPDX-License-Identifier: GPL-2.0-or-later
# The system calls that comments of the form "seccomp: NAME..." name, as a list for sandbox.c.
{
	line = $0
	while (match(line, /\/\* seccomp: [a-z0-9_ ]+ \*\//)) {
		n = split(substr(line, RSTART + 12, RLENGTH - 15), names, " ")
		for (i = 1; i <= n; i++)
			calls[names[i]] = 1
		line = substr(line, RSTART + RLENGTH)
	}
}
END {
	print "#define EC_WORKER_SYSCALLS \\"
	for (name in calls)
		printf "\tSCMP_SYS(%s), \\\n", name
	print "\tSCMP_SYS(rt_sigreturn)"
}

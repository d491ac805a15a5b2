/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* Gives up what carrying packets does not need: root, capabilities, the filesystem, more open
 * files, all system calls but those with a comment of the form "seccomp: NAME" beside them in these
 * sources. One that is not allowed kills the process. For good. -errno with *ret_text; who is not
 * root keeps its user. */
int ec_sandbox(const char **ret_text);

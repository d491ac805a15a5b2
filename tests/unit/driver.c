/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "driver.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

typedef struct Input {
	DriverRun run;
	void *userdata;
} Input;

static int on_line(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	const Input *input = userdata;
	char line[1024];

	/* Whoever writes waits for the answer: a line is a read. */
	ssize_t n = read(fd, line, sizeof(line) - 1);
	if (n <= 0)
		return sd_event_exit(sd_event_source_get_event(s), 0);
	line[n] = '\0';
	g_auto(GStrv) words = g_strsplit(g_strstrip(line), " ", -1);
	input->run(words, g_strv_length(words), input->userdata);
	return 0;
}

int driver_begin(sd_event **ret)
{
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	return sd_event_new(ret);
}

int driver_serve(sd_event *event, DriverRun run, void *userdata)
{
	Input input = { run, userdata };
	sd_event_source *source = NULL;
	int r = sd_event_add_io(event, &source, STDIN_FILENO, EPOLLIN, on_line, &input);

	if (r >= 0)
		r = sd_event_loop(event);
	(void)sd_event_source_unref(source);
	return r;
}

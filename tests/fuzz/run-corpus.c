/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

/*
 * A fuzz target as a plain test, the same in each run: every file of its corpus, then many changed
 * ones - bits flipped, bytes and words set, cut, two joined, parts doubled.
 *
 * usage: run-corpus DIRECTORY ROUNDS
 */

#define SIZE_MAX_TRIED 4096

static gint by_name(gconstpointer a, gconstpointer b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static GPtrArray *load(const char *directory)
{
	GPtrArray *files = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
	g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	const char *name;

	while (dir && (name = g_dir_read_name(dir)))
		g_ptr_array_add(names, g_build_filename(directory, name, NULL));
	/* The order of a directory is nobody's. */
	g_ptr_array_sort(names, by_name);
	for (guint i = 0; i < names->len; i++) {
		char *data;
		gsize n;

		if (g_file_get_contents(names->pdata[i], &data, &n, NULL))
			g_ptr_array_add(files, g_byte_array_new_take((guint8 *)data, n));
	}
	return files;
}

static guint below(GRand *rand, guint n)
{
	return n > 0 ? g_rand_int(rand) % n : 0;
}

static void change(GRand *rand, GByteArray *b, const GByteArray *other)
{
	static const guint8 favourites[] = { 0, 1, 0x7f, 0x80, 0xff, 's', 'v', '(', ')', 'a' };
	guint at = below(rand, b->len), n;

	switch (below(rand, 6)) {
	case 0:
		if (b->len > 0)
			b->data[at] ^= (guint8)(1u << below(rand, 8));
		break;
	case 1:
		if (b->len > 0)
			b->data[at] = favourites[below(rand, G_N_ELEMENTS(favourites))];
		break;
	case 2:
		g_byte_array_set_size(b, at);
		break;
	case 3: /* the tail of another one */
		g_byte_array_set_size(b, at);
		at = below(rand, other->len);
		if (other->len > 0)
			g_byte_array_append(b, other->data + at, other->len - at);
		break;
	case 4:
		n = below(rand, MIN(16, b->len - at));
		if (n > 0)
			g_byte_array_remove_range(b, at, n);
		break;
	default:
		n = b->len - at;
		g_byte_array_set_size(b, b->len + n);
		if (n > 0)
			memmove(b->data + at + n, b->data + at, n);
	}
	if (b->len > SIZE_MAX_TRIED)
		g_byte_array_set_size(b, SIZE_MAX_TRIED);
}

static void run(const GByteArray *b)
{
	/* A block of its own size: reading beyond it is seen. */
	g_autofree guint8 *data = g_memdup2(b->data, b->len);

	(void)LLVMFuzzerTestOneInput(data, b->len);
}

int main(int argc, char **argv)
{
	g_autoptr(GRand) rand = g_rand_new_with_seed(1);
	unsigned long rounds = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	g_autoptr(GPtrArray) files = load(argc == 3 ? argv[1] : "");

	printf("1..2\n");
	for (guint i = 0; i < files->len; i++)
		run(files->pdata[i]);
	printf("%s 1 %u files of the corpus\n", files->len > 0 ? "ok" : "not ok", files->len);
	for (unsigned long n = 0; files->len > 0 && n < rounds; n++) {
		const GByteArray *from = files->pdata[below(rand, files->len)];
		g_autoptr(GByteArray) b = g_byte_array_new();

		g_byte_array_append(b, from->data, from->len);
		for (guint i = 1 + below(rand, 4); i > 0; i--)
			change(rand, b, files->pdata[below(rand, files->len)]);
		run(b);
	}
	printf("%s 2 %lu changed ones\n", files->len > 0 && rounds > 0 ? "ok" : "not ok", rounds);
	return 0;
}

/*
 * libseccomp on a pipe, for the test beside it: one request a line, one answer a line.
 *
 *   resolve NAME                          -> six numbers, in the order of `archs` below
 *   names                                 -> all names that have a number on one of them, some twice
 *   filter DEFAULT                        (starts a filter)
 *   arch TOKEN                            (adds an architecture)
 *   rule ACTION NAME COUNT {ARG OP A B}   (adds a rule; an unknown name is skipped, as runc does)
 *   build                                 -> "error TEXT", or the instructions as code:jt:jf:k
 *   tree                                  -> the rules as pseudo code, lines ended by '|' instead of '\n'
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint32_t archs[] = { SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_X32,
				  SCMP_ARCH_AARCH64, SCMP_ARCH_ARM, SCMP_ARCH_RISCV64 };

static scmp_filter_ctx filter;
static int failed; /* the first error of this filter */

static void names(void)
{
	for (size_t i = 0; i < sizeof(archs) / sizeof(*archs); i++)
		for (int number = 0; number < 0x0f0010; number = number == 1023 ? 0x0f0000 : number + 1) {
			char *name = seccomp_syscall_resolve_num_arch(archs[i], number);

			if (name)
				printf("%s ", name);
			free(name);
		}
	printf("\n");
}

static void note(int rc)
{
	if (rc < 0 && rc != -EEXIST && !failed)
		failed = rc;
}

static void add_rule(char *rest)
{
	int at, number, i;
	unsigned int count;
	uint32_t action;
	char name[64];
	struct scmp_arg_cmp args[6];

	if (sscanf(rest, "%x %63s %u%n", &action, name, &count, &at) != 3 || count > 6)
		abort();
	for (i = 0; i < (int)count; i++) {
		unsigned int arg, op;
		uint64_t a, b;
		int more;

		rest += at;
		if (sscanf(rest, "%u %u %lx %lx%n", &arg, &op, &a, &b, &more) != 4)
			abort();
		at = more;
		args[i] = (struct scmp_arg_cmp){ arg, op, a, b };
	}
	number = seccomp_syscall_resolve_name(name);
	if (number == __NR_SCMP_ERROR)
		return;
	i = seccomp_rule_add_array(filter, action, number, count, args);
	if (i < 0 && !failed)
		failed = i;
}

static int exported(int (*export)(const scmp_filter_ctx, int))
{
	int fd = memfd_create("filter", MFD_CLOEXEC);
	int rc = export(filter, fd);

	if (rc < 0 && !failed)
		failed = rc;
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void build(void)
{
	struct sock_filter one;
	int fd;

	/* With a binary tree the program loads the number itself. The simple form leaves that to its first rule, also
	 * where that is a call which the architecture lacks and which is not in the program: then nothing matches. */
	if (!failed)
		note(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2));
	fd = exported(seccomp_export_bpf);
	if (failed) {
		printf("error %s\n", strerror(-failed));
	} else {
		while (read(fd, &one, sizeof(one)) == sizeof(one))
			printf("%x:%x:%x:%x ", one.code, one.jt, one.jf, one.k);
		printf("\n");
	}
	close(fd);
}

static void tree(void)
{
	char text[4096];
	ssize_t length;
	int fd;

	note(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 1));
	fd = exported(seccomp_export_pfc);
	while ((length = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < length; i++)
			putchar(text[i] == '\n' ? '|' : text[i]);
	printf("\n");
	close(fd);
}

int main(void)
{
	static char line[65536];

	while (fgets(line, sizeof(line), stdin)) {
		/* Some rule sets send libseccomp round in circles: then this ends, and the test sees an end-of-file. */
		alarm(2);
		char *rest = strchr(line, ' ');

		line[strcspn(line, "\n")] = 0;
		if (rest)
			*rest++ = 0;
		if (!strcmp(line, "resolve")) {
			for (size_t i = 0; i < sizeof(archs) / sizeof(*archs); i++)
				printf("%d ", seccomp_syscall_resolve_name_arch(archs[i], rest));
			printf("\n");
		} else if (!strcmp(line, "names")) {
			names();
		} else if (!strcmp(line, "filter")) {
			if (filter)
				seccomp_release(filter);
			failed = 0;
			filter = seccomp_init(strtoul(rest, NULL, 16));
			if (!filter)
				failed = -EINVAL;
		} else if (!strcmp(line, "arch")) {
			note(seccomp_arch_add(filter, strtoul(rest, NULL, 16)));
		} else if (!strcmp(line, "rule")) {
			add_rule(rest);
		} else if (!strcmp(line, "build")) {
			build();
		} else if (!strcmp(line, "tree")) {
			tree();
		} else {
			abort();
		}
		fflush(stdout);
	}
	return 0;
}

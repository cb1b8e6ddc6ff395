/* SPDX-License-Identifier: Apache-2.0
 * Compiles profiles with libseccomp, set up as runc sets it up. Built and driven by libseccomp.rs.
 *
 * Standard input, one command a line; standard output, one answer for each "end" and "resolve":
 *   resolve NAME            numbers of NAME for the native architecture, X86_64, X86, X32 ("1 2 3 4")
 *   begin ACTION OPTIMIZE   a filter with this default action (hexadecimal)
 *   arch TOKEN              one more architecture (hexadecimal)
 *   rule ACTION NAME N (ARG OP A B)*N
 *   end                     "filter BYTES" and that many bytes, then "description BYTES" and so on (seccomp_export_bpf
 *                           and _pfc); or "error LINE ERRNO" for the first command that failed
 */
#define _GNU_SOURCE
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static scmp_filter_ctx filter;
static int line, failed_line, failure;

static void note(int rc)
{
	if (rc < 0 && !failure) {
		failure = -rc;
		failed_line = line;
	}
}

static void rule(const char *rest)
{
	struct scmp_arg_cmp args[6];
	unsigned int action, n, i;
	char name[128];
	int used;

	if (sscanf(rest, "%x %127s %u%n", &action, name, &n, &used) != 3 || n > 6)
		exit(2);
	rest += used;
	for (i = 0; i < n; i++) {
		unsigned long long a, b;
		unsigned int arg, op;

		if (sscanf(rest, "%u %u %llx %llx%n", &arg, &op, &a, &b, &used) != 4)
			exit(2);
		rest += used;
		args[i].arg = arg;
		args[i].op = op;
		args[i].datum_a = a;
		args[i].datum_b = b;
	}
	used = seccomp_syscall_resolve_name(name);
	if (used != __NR_SCMP_ERROR)
		note(seccomp_rule_add_array(filter, action, used, n, args));
}

static void answer(const char *what, int (*export)(const scmp_filter_ctx, int))
{
	static char bytes[1 << 22];
	int fd = memfd_create(what, 0);
	long size;

	if (fd < 0 || export(filter, fd) < 0)
		exit(3);
	size = lseek(fd, 0, SEEK_END);
	if (size < 0 || size > (long)sizeof(bytes) || pread(fd, bytes, size, 0) != size)
		exit(3);
	printf("%s %ld\n", what, size);
	fwrite(bytes, 1, size, stdout);
	close(fd);
}

static void end(void)
{
	if (failure) {
		printf("error %d %d\n", failed_line, failure);
	} else {
		answer("filter", seccomp_export_bpf);
		answer("description", seccomp_export_pfc);
	}
	seccomp_release(filter);
	fflush(stdout);
}

int main(void)
{
	static char text[4096];

	while (fgets(text, sizeof(text), stdin)) {
		unsigned int a, b;
		char name[128];

		line++;
		if (sscanf(text, "begin %x %u", &a, &b) == 2) {
			line = failure = 0;
			/* It takes no errno from 4096 on. */
			filter = seccomp_init(a);
			if (!filter) {
				filter = seccomp_init(SCMP_ACT_ALLOW);
				note(-EINVAL);
			}
			note(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, b));
			note(seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0));
		} else if (sscanf(text, "arch %x", &a) == 1) {
			if (seccomp_arch_exist(filter, a) != 0)
				note(seccomp_arch_add(filter, a));
		} else if (!strncmp(text, "rule ", 5)) {
			rule(text + 5);
		} else if (!strcmp(text, "end\n")) {
			end();
		} else if (sscanf(text, "resolve %127s", name) == 1) {
			printf("%d %d %d %d\n", seccomp_syscall_resolve_name(name),
			       seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name),
			       seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86, name),
			       seccomp_syscall_resolve_name_arch(SCMP_ARCH_X32, name));
			fflush(stdout);
		} else {
			exit(5);
		}
	}
	return 0;
}

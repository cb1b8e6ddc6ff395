/* SPDX-License-Identifier: Apache-2.0
 * Compiles profiles with libseccomp, set up as runc sets it up. Built and driven by libseccomp.rs.
 *
 * Standard input, one command a line; standard output, one answer for each "end" and "resolve":
 *   resolve NAME            numbers of NAME for the native architecture, X86_64, X86, X32, AARCH64, ARM, RISCV64 ("1 2 3 4 5 6 7")
 *   begin ACTION OPTIMIZE   a filter with this default action (hexadecimal)
 *   foreign TOKEN           for this architecture instead of the native one (hexadecimal), as libseccomp makes it there
 *   arch TOKEN              one more architecture (hexadecimal)
 *   rule ACTION NAME N (ARG OP A B)*N
 *   end                     "filter BYTES" and that many bytes, then "description BYTES" and so on (seccomp_export_bpf
 *                           and _pfc); or "error LINE ERRNO" for the first command that failed, ETIME if it hung
 */
#define _GNU_SOURCE
#include <errno.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const unsigned int columns[] = { SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_X32, SCMP_ARCH_AARCH64, SCMP_ARCH_ARM, SCMP_ARCH_RISCV64 };

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

/* Some profiles put libseccomp 2.5.4 into an endless loop. */
static sigjmp_buf stuck;

static void on_alarm(int signal)
{
	siglongjmp(stuck, signal);
}

struct text {
	char bytes[1 << 22];
	long size;
};

static void export(struct text *to, int (*how)(const scmp_filter_ctx, int))
{
	int fd = memfd_create("export", 0);

	if (fd < 0)
		exit(3);
	note(how(filter, fd));
	to->size = lseek(fd, 0, SEEK_END);
	if (to->size < 0 || to->size > (long)sizeof(to->bytes) ||
	    pread(fd, to->bytes, to->size, 0) != to->size)
		exit(3);
	close(fd);
}

static void end(void)
{
	static struct text bpf, pfc;

	if (!failure)
		export(&bpf, seccomp_export_bpf);
	if (!failure)
		export(&pfc, seccomp_export_pfc);
	alarm(0);
	if (failure) {
		printf("error %d %d\n", failed_line, failure);
	} else {
		printf("filter %ld\n", bpf.size);
		fwrite(bpf.bytes, 1, bpf.size, stdout);
		printf("description %ld\n", pfc.size);
		fwrite(pfc.bytes, 1, pfc.size, stdout);
	}
	fflush(stdout);
	if (failure != ETIME)
		seccomp_release(filter);
}

int main(void)
{
	static char text[4096];

	signal(SIGALRM, on_alarm);
	if (sigsetjmp(stuck, 1)) {
		note(-ETIME);
		/* It may have been the "end" that got stuck: its answer is due now. */
		if (!strcmp(text, "end\n"))
			end();
	}
	while (fgets(text, sizeof(text), stdin)) {
		unsigned int a, b;
		char name[128];

		line++;
		if (sscanf(text, "begin %x %u", &a, &b) == 2) {
			line = failure = 0;
			alarm(3);
			/* It takes no errno from 4096 on. */
			filter = seccomp_init(a);
			if (!filter) {
				filter = seccomp_init(SCMP_ACT_ALLOW);
				note(-EINVAL);
			}
			note(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, b));
			note(seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0));
		} else if (sscanf(text, "foreign %x", &a) == 1) {
			note(seccomp_arch_add(filter, a));
			note(seccomp_arch_remove(filter, SCMP_ARCH_NATIVE));
		} else if (sscanf(text, "arch %x", &a) == 1) {
			if (seccomp_arch_exist(filter, a) != 0)
				note(seccomp_arch_add(filter, a));
		} else if (!strncmp(text, "rule ", 5)) {
			if (!failure)
				rule(text + 5);
		} else if (!strcmp(text, "end\n")) {
			end();
		} else if (sscanf(text, "resolve %127s", name) == 1) {
			printf("%d", seccomp_syscall_resolve_name(name));
			for (a = 0; a < sizeof(columns) / sizeof(columns[0]); a++)
				printf(" %d", seccomp_syscall_resolve_name_arch(columns[a], name));
			printf("\n");
			fflush(stdout);
		} else {
			exit(5);
		}
	}
	return 0;
}

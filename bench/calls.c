// SPDX-License-Identifier: Apache-2.0
//
// calls TRACEFS COMM FILE PROGRAM [ARG...]
//
// Runs PROGRAM, and writes into FILE how many system calls it and all its descendants made whose command name is not COMM: by the kernel's own
// counter (the tracepoint raw_syscalls:sys_enter, perf_event_open(2)), so that nobody is stopped. The exit status is PROGRAM's, or 125 where
// the kernel does not count. It passes SIGTERM on.

#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t child;

static void pass_on(int number)
{
	kill(child, number);
}

static void check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "calls: %s: %s\n", what, strerror(errno));
		exit(125);
	}
}

int main(int argc, char *argv[])
{
	char path[4096], filter[64];
	int status, word[2];
	uint64_t count;

	if (argc < 5) {
		fprintf(stderr, "usage: calls TRACEFS COMM FILE PROGRAM [ARG...]\n");
		return 125;
	}
	snprintf(path, sizeof path, "%s/events/raw_syscalls/sys_enter/id", argv[1]);
	FILE *file = fopen(path, "r");
	check(file ? 0 : -1, path);
	struct perf_event_attr attr = {.type = PERF_TYPE_TRACEPOINT, .size = sizeof attr, .inherit = 1, .disabled = 1, .enable_on_exec = 1};
	check(fscanf(file, "%llu", (unsigned long long *)&attr.config) == 1 ? 0 : -1, path);
	fclose(file);
	check(pipe(word), "pipe");
	child = fork();
	check(child, "fork");
	if (child == 0) {
		check(read(word[0], path, 1) == 1 ? 0 : -1, "read");
		close(word[0]);
		close(word[1]);
		execvp(argv[4], argv + 4);
		check(-1, argv[4]);
	}
	signal(SIGTERM, pass_on);
	long event = syscall(SYS_perf_event_open, &attr, child, -1, -1, PERF_FLAG_FD_CLOEXEC);
	check(event, "perf_event_open");
	snprintf(filter, sizeof filter, "comm != \"%s\"", argv[2]);
	check(ioctl((int)event, PERF_EVENT_IOC_SET_FILTER, filter), filter);
	check(write(word[1], "x", 1), "write");
	while (waitpid(child, &status, 0) < 0)
		check(errno == EINTR ? 0 : -1, "waitpid");
	check(read((int)event, &count, sizeof count) == sizeof count ? 0 : -1, "read of the counter");
	file = fopen(argv[3], "w");
	check(file ? 0 : -1, argv[3]);
	fprintf(file, "%llu\n", (unsigned long long)count);
	fclose(file);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// SPDX-License-Identifier: Apache-2.0
//
// timeit OUT ERR
//
// Times commands for bench.py, from as little of a process as possible: the measured child is spawned with vfork
// semantics out of a static program of a few pages, so neither an interpreter's fork nor its memory gets into the
// figures. Reads lines "COUNT TAB ARG TAB ARG ..." from stdin, runs each command COUNT times one after the other, and
// answers COUNT lines
//
//     STATUS WALL_NS CPU_US FAULTS PEAK_KB
//
// STATUS is the exit code, 128 + signal, or -errno if it could not be started. CPU time and minor faults are of the
// command and of all descendants it waited for, PEAK_KB is the largest resident set among them (the kernel counts
// this program's own in at the exec, and is off by up to a batch of pages per CPU). The command's stdout and stderr
// go to OUT and ERR, which hold what the last line's command wrote.
//
// Orphans (containers) are reaped here at once, as a shim would: a runtime that waits for its dead container to vanish
// must not wait for us. A command that takes longer than `limit` seconds is killed.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const unsigned int limit = 20;
static volatile pid_t running;

extern char **environ;

static void on_alarm(int signal)
{
	(void)signal;
	if (running > 0)
		kill(running, SIGKILL);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long micros(struct timeval time)
{
	return time.tv_sec * 1000000LL + time.tv_usec;
}

static void run(char *const argv[], FILE *answers)
{
	struct rusage usage;
	int status;
	pid_t pid, reaped;

	alarm(limit);
	long long start = now();
	int error = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (error != 0) {
		fprintf(answers, "%d 0 0 0 0\n", -error);
		return;
	}
	running = pid;
	do
		reaped = wait4(-1, &status, 0, &usage);
	while (reaped != pid && (reaped > 0 || errno == EINTR));
	long long wall = now() - start;
	running = 0;
	alarm(0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	fprintf(answers, "%d %lld %lld %ld %ld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
		wall, micros(usage.ru_utime) + micros(usage.ru_stime), usage.ru_minflt, usage.ru_maxrss);
}

// Splits a request in place; false if it is not one.
static bool parse(char *line, long *count, char *argv[], size_t room)
{
	size_t argc = 0;

	line[strcspn(line, "\n")] = '\0';
	*count = strtol(line, &line, 10);
	while (*line == '\t' && argc + 1 < room) {
		*line++ = '\0';
		argv[argc++] = line;
		line += strcspn(line, "\t");
	}
	argv[argc] = NULL;
	return argc > 0 && *line == '\0';
}

static void redirect(const char *path, int target)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);

	if (fd < 0 || dup2(fd, target) < 0 || close(fd) < 0)
		_exit(125);
}

int main(int argc, char *argv[])
{
	static char line[65536];
	static char *command[256];
	long count;

	if (argc != 3) {
		fprintf(stderr, "usage: timeit OUT ERR <REQUESTS\n");
		return 125;
	}
	// The protocol moves out of the children's sight; they inherit plain 0, 1 and 2.
	FILE *requests = fdopen(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 10), "r");
	FILE *answers = fdopen(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10), "w");
	if (requests == NULL || answers == NULL)
		return 125;
	redirect("/dev/null", STDIN_FILENO);
	redirect(argv[1], STDOUT_FILENO);
	redirect(argv[2], STDERR_FILENO);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	signal(SIGALRM, on_alarm);

	while (fgets(line, sizeof line, requests) != NULL) {
		if (!parse(line, &count, command, sizeof command / sizeof *command))
			return 125;
		if (ftruncate(STDOUT_FILENO, 0) < 0 || ftruncate(STDERR_FILENO, 0) < 0)
			return 125;
		while (count-- > 0)
			run(command, answers);
		fflush(answers);
	}
	return 0;
}

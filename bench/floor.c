// SPDX-License-Identifier: Apache-2.0
//
// floor CGROUP ROOTFS PROGRAM [ARG...]
//
// The yardstick of `make bench`: what the kernel itself takes for `run` of the default `spec` bundle on pure cgroup v2.
// One process is cloned into the fresh cgroup directory CGROUP and into new namespaces, ROOTFS becomes its root, and
// PROGRAM is executed in it; then the cgroup goes. The exit status is PROGRAM's, or 125 if anything failed before it.
//
// It must never do a runtime's own work: no configuration, no state, no handshake; nor does contain.h. bench.py compares
// the container with the runtimes' by the eyes of a program inside (bench/look).

#define _GNU_SOURCE
#include "contain.h"
#include <signal.h>
#include <sys/wait.h>

static void contain(const char *rootfs, char *const argv[])
{
	become_container(rootfs);
	check(execve(argv[0], argv, environment), argv[0]);
}

int main(int argc, char *argv[])
{
	int status;

	if (argc < 4) {
		dprintf(STDERR_FILENO, "usage: floor CGROUP ROOTFS PROGRAM [ARG...]\n");
		return 125;
	}
	check(mkdir(argv[1], 0755), argv[1]);
	int cgroup = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	check(cgroup, argv[1]);
	struct clone_args args = {
		.flags = namespaces | CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup};
	long pid = syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0)
		contain(argv[2], argv + 3);
	int cloned = errno;
	if (pid > 0)
		check(waitpid((pid_t)pid, &status, 0), "wait");
	check(rmdir(argv[1]), argv[1]);
	errno = cloned;
	check(pid, "clone3");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

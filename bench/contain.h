// SPDX-License-Identifier: Apache-2.0
//
// What a process calls to become the container of the default bundle, and no more: shared by the floors of `make bench` (floor.c) and of
// `make bench-shim` (floor-shim.c). Whoever includes it defines _GNU_SOURCE.
//
// It must never do a runtime's own work: no configuration, no checks of paths, no filters (neither seccomp nor the eBPF one
// of linux.resources.devices). Every constant below is what `runc spec` writes.

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// From <linux/sched.h> and <linux/capability.h>: musl-gcc does not find the kernel's headers.
#define CLONE_INTO_CGROUP 0x200000000ULL
struct clone_args {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
enum { CAP_KILL = 5, CAP_NET_BIND_SERVICE = 10, CAP_AUDIT_WRITE = 29, CAPABILITY_VERSION_3 = 0x20080522 };
struct cap_header {
	uint32_t version;
	int pid;
};
struct cap_data {
	uint32_t effective, permitted, inheritable;
};

static const uint64_t namespaces =
	CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP;

static const uint32_t capabilities = 1U << CAP_AUDIT_WRITE | 1U << CAP_KILL | 1U << CAP_NET_BIND_SERVICE;

static const struct {
	const char *source, *target, *type;
	unsigned long flags;
	const char *data;
} mounts[] = {
	{"proc", "proc", "proc", 0, NULL},
	{"tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"},
	{"devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k"},
	{"mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL},
	{"sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL},
	{"cgroup", "sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME | MS_RDONLY, NULL},
};

static const struct {
	const char *path;
	unsigned int major, minor;
} devices[] = {
	{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
	{"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
};

static const struct {
	const char *target, *path;
} links[] = {
	{"/proc/self/fd", "dev/fd"},         {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
	{"/proc/self/fd/2", "dev/stderr"},   {"/proc/kcore", "dev/core"},      {"pts/ptmx", "dev/ptmx"},
};

static const char *const masked[] = {
	"/proc/acpi",        "/proc/asound",      "/proc/kcore",       "/proc/keys",    "/proc/latency_stats",
	"/proc/timer_list",  "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
};

static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

static char *const environment[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", NULL};

// The names of cgroup v1's hierarchies, where the host has them: then the container sees those.
static const char *hierarchies[16];

#define LEN(array) (sizeof(array) / sizeof *(array))

static void check(long result, const char *what)
{
	if (result < 0) {
		dprintf(STDERR_FILENO, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static void mount_hierarchies(void)
{
	const unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	char target[64] = "sys/fs/cgroup";

	check(mount("tmpfs", target, "tmpfs", flags, "mode=755"), target);
	for (size_t i = 0; i < LEN(hierarchies) && hierarchies[i]; i++) {
		snprintf(target, sizeof target, "sys/fs/cgroup/%s", hierarchies[i]);
		check(mkdir(target, 0755), target);
		// systemd's own has a name in a controller's place.
		const char *which = strcmp(hierarchies[i], "systemd") == 0 ? "none,name=systemd" : hierarchies[i];
		check(mount("cgroup", target, "cgroup", flags | MS_RELATIME | MS_RDONLY, which), target);
	}
	check(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL), "sys/fs/cgroup");
}

static void make_rootfs(const char *rootfs)
{
	check(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "propagation");
	check(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), rootfs);
	check(chdir(rootfs), rootfs);
	for (size_t i = 0; i < LEN(mounts); i++) {
		const char *target = mounts[i].target;
		if (hierarchies[0] && strcmp(mounts[i].type, "cgroup2") == 0) {
			mount_hierarchies();
			continue;
		}
		if (mount(mounts[i].source, target, mounts[i].type, mounts[i].flags, mounts[i].data) == 0)
			continue;
		check(errno == ENOENT ? mkdir(target, 0755) : -1, target);
		check(mount(mounts[i].source, target, mounts[i].type, mounts[i].flags, mounts[i].data), target);
	}
	for (size_t i = 0; i < LEN(devices); i++)
		check(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), devices[i].path);
	for (size_t i = 0; i < LEN(links); i++)
		check(symlink(links[i].target, links[i].path), links[i].path);
}

// The old root ends up below the new one at the same place, so that one detach of "." removes it.
static void pivot(void)
{
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "detach of the old root");
	check(chdir("/"), "/");
	check(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "read-only /");
}

static void protect_paths(void)
{
	for (size_t i = 0; i < LEN(masked); i++) {
		int result = mount("/dev/null", masked[i], NULL, MS_BIND, NULL);
		if (result < 0 && errno == ENOTDIR)
			result = mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL);
		check(result < 0 && errno == ENOENT ? 0 : result, masked[i]);
	}
	for (size_t i = 0; i < LEN(read_only); i++) {
		int result = mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL);
		if (result < 0 && errno == ENOENT)
			continue;
		check(result, read_only[i]);
		check(mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), read_only[i]);
	}
}

static void drop_privileges(void)
{
	struct rlimit files = {1024, 1024};
	struct cap_header header = {CAPABILITY_VERSION_3, 0};
	struct cap_data data[2] = {{capabilities, capabilities, 0}};

	check(setrlimit(RLIMIT_NOFILE, &files), "rlimit");
	for (int cap = 0; cap < 64; cap++) {
		if (cap < 32 && capabilities >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			check(errno == EINVAL ? 0 : -1, "bounding set");
			break; // beyond the kernel's last capability
		}
	}
	check(setgroups(0, NULL), "setgroups");
	check(setresgid(0, 0, 0), "setresgid");
	check(setresuid(0, 0, 0), "setresuid");
	check(syscall(SYS_capset, &header, data), "capset");
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

// All of it but the exec.
static void become_container(const char *rootfs)
{
	umask(0);
	make_rootfs(rootfs);
	pivot();
	check(sethostname("floor", 5), "hostname");
	protect_paths();
	umask(022);
	drop_privileges();
}

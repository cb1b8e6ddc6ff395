// SPDX-License-Identifier: Apache-2.0
//
// containerd-shim-null-v2, containerd-shim-bare-v2: the yardsticks of `make bench-shim`, one program under two names.
//
// It answers containerd as a shim does. As `null` it makes nothing: what a container takes then is containerd's own. As `bare` it makes the
// container of the default bundle by bare system calls: the rootfs mount, a group in each hierarchy, namespaces, mounts, capabilities, the exec, the
// events. What a shim takes beyond that is a runtime's own work. One container each; its program is the last word of config.json's
// process.args, which must be an absolute path. Groups are below $FLOOR_GROUP in every hierarchy.
//
// It must never do a runtime's own work: no configuration, no state, no checks, no undo. After an error it says so and ends, and what it made is
// whoever's to remove who runs it.

#define _GNU_SOURCE
#include "contain.h"
#include "wire.h"
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum { CLIENTS = 8, WAITS = 8, MOST = 1 << 20, CREATED = 1, RUNNING = 2, STOPPED = 3 };

static bool bare;
static const char *namespace, *container;

static struct {
	char bundle[512], program[256];
	int status, events, socket, pidfd;
	uint32_t event;
	pid_t pid;
	unsigned int exit;
	struct timespec ended;
} task = {.events = -1, .socket = -1, .pidfd = -1};

static struct {
	int fd;
	uint32_t stream;
} waits[WAITS];

// Both what Delete and what Wait tell of the end begin with the status; `first` is its field.
static void put_end(struct out *out, unsigned int first)
{
	if (task.exit != 0)
		put_number(out, first, task.exit);
	put_time(out, first + 1, task.ended);
}

static void event(const char *topic, const char *type, const struct out *body)
{
	const char *address = getenv("TTRPC_ADDRESS");
	struct out any = {0}, envelope = {0}, forward = {0}, request = {0};
	struct timespec now;

	if (!bare || !address)
		return;
	if (task.events < 0) {
		struct sockaddr_un to = {.sun_family = AF_UNIX};
		strncpy(to.sun_path, strncmp(address, "unix://", 7) == 0 ? address + 7 : address, sizeof to.sun_path - 1);
		task.events = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		check(connect(task.events, (struct sockaddr *)&to, sizeof to), address);
	}
	clock_gettime(CLOCK_REALTIME, &now);
	put_text(&any, 1, type);
	put_bytes(&any, 2, body->at, body->length);
	put_time(&envelope, 1, now);
	put_text(&envelope, 2, namespace);
	put_text(&envelope, 3, topic);
	put_bytes(&envelope, 4, any.at, any.length);
	put_bytes(&forward, 1, envelope.at, envelope.length);
	put_text(&request, 1, "containerd.services.events.ttrpc.v1.Events");
	put_text(&request, 2, "Forward");
	put_bytes(&request, 3, forward.at, forward.length);
	task.event += 2;
	send_frame(task.events, REQUEST, task.event - 1, &request);
}

static void group_path(char *path, size_t size, const char *hierarchy, const char *file)
{
	const char *above = getenv("FLOOR_GROUP");
	snprintf(path, size, "/sys/fs/cgroup/%s%s/%s%s", hierarchy, above ? above : "/floor", container, file);
}

// Joins, or makes, or removes the group in every hierarchy; on v2 there is one, whose name is empty.
static void each_group(const char *what)
{
	char path[512];
	for (size_t i = 0; i == 0 || (i < LEN(hierarchies) && hierarchies[i]); i++) {
		const char *hierarchy = hierarchies[i] ? hierarchies[i] : "";
		group_path(path, sizeof path, hierarchy, *what == 'j' ? "/cgroup.procs" : "");
		if (*what == 'm') {
			check(mkdir(path, 0755), path);
		} else if (*what == 'r') {
			check(rmdir(path), path);
		} else {
			int fd = open(path, O_WRONLY | O_CLOEXEC);
			check(fd, path);
			check(write(fd, "0", 1), path);
			close(fd);
		}
	}
}

static void find_hierarchies(void)
{
	static const char *const known[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
		"hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"};
	char path[64];
	size_t found = 0;
	for (size_t i = 0; i < LEN(known); i++) {
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/cgroup.procs", known[i]);
		if (access(path, F_OK) == 0 && found < LEN(hierarchies) - 1)
			hierarchies[found++] = known[i];
	}
}

// What comes last in process.args.
static void read_program(void)
{
	static char text[65536];
	char path[600];
	snprintf(path, sizeof path, "%s/config.json", task.bundle);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd, path);
	ssize_t length = read(fd, text, sizeof text - 1);
	check(length, path);
	close(fd);
	text[length] = 0;
	char *args = strstr(text, "\"args\""), *end = args ? strchr(args, ']') : NULL;
	for (char *at = end; at && at > args; at--) {
		if (*at != '/' || at[-1] != '"')
			continue;
		*strchr(at, '"') = 0;
		snprintf(task.program, sizeof task.program, "%s", at);
		return;
	}
	errno = EINVAL;
	check(-1, path);
}

static void mount_rootfs(struct bytes request, const char *rootfs)
{
	struct bytes value;
	uint64_t number;
	for (unsigned int at; (at = next(&request, &value, &number)) != 0;) {
		if (at != 3)
			continue;
		char type[32] = "", data[2048] = "";
		struct bytes part;
		size_t length = 0;
		for (struct bytes of = value; (at = next(&of, &part, &number)) != 0;) {
			if (at == 1)
				snprintf(type, sizeof type, "%.*s", (int)part.length, (const char *)part.at);
			if (at == 4)
				length += (size_t)snprintf(data + length, sizeof data - length, "%s%.*s", length ? "," : "", (int)part.length, (const char *)part.at);
		}
		check(mount(type, rootfs, type, 0, data), rootfs);
	}
}

static void create(struct bytes request)
{
	char rootfs[600];
	struct bytes bundle = field(request, 2);
	snprintf(task.bundle, sizeof task.bundle, "%.*s", (int)bundle.length, (const char *)bundle.at);
	task.pid = getpid();
	task.status = CREATED;
	if (!bare)
		return;
	snprintf(rootfs, sizeof rootfs, "%s/rootfs", task.bundle);
	read_program();
	find_hierarchies();
	mount_rootfs(request, rootfs);
	each_group("make");
	int pair[2], pidfd = -1;
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
	struct clone_args args = {.flags = namespaces | CLONE_PIDFD, .pidfd = (uint64_t)&pidfd, .exit_signal = SIGCHLD};
	long pid = syscall(SYS_clone3, &args, sizeof args);
	check(pid, "clone3");
	char word;
	if (pid == 0) {
		char *argv[] = {task.program, NULL};
		each_group("join");
		become_container(rootfs);
		check(write(pair[1], "r", 1), "ready");
		check(read(pair[1], &word, 1) == 1 ? 0 : -1, "start");
		check(execve(argv[0], argv, environment), argv[0]);
	}
	close(pair[1]);
	check(read(pair[0], &word, 1) == 1 ? 0 : -1, "the container's process");
	task.socket = pair[0];
	task.pidfd = pidfd;
	task.pid = (pid_t)pid;
	struct out body = {0};
	put_text(&body, 1, container);
	put_text(&body, 2, task.bundle);
	put_number(&body, 6, (uint64_t)pid);
	event("/tasks/create", "containerd.events.TaskCreate", &body);
}

static void ended(void)
{
	clock_gettime(CLOCK_REALTIME, &task.ended);
	task.status = STOPPED;
	for (size_t i = 0; i < WAITS; i++) {
		if (waits[i].fd == 0)
			continue;
		struct out out = {0};
		put_end(&out, 1);
		answer(waits[i].fd, waits[i].stream, &out);
		waits[i].fd = 0;
	}
}

static void start(void)
{
	char none;
	task.status = RUNNING;
	if (!bare) {
		ended();
		return;
	}
	check(write(task.socket, "s", 1), "start");
	check(read(task.socket, &none, 1) == 0 ? 0 : -1, "exec");
	close(task.socket);
	struct out body = {0};
	put_text(&body, 1, container);
	put_number(&body, 2, (uint64_t)task.pid);
	event("/tasks/start", "containerd.events.TaskStart", &body);
}

static void reap(void)
{
	int status;
	check(waitpid(task.pid, &status, 0), "waitpid");
	task.exit = WIFEXITED(status) ? (unsigned int)WEXITSTATUS(status) : 128U + (unsigned int)WTERMSIG(status);
	close(task.pidfd);
	task.pidfd = -1;
	ended();
	struct out body = {0};
	put_text(&body, 1, container);
	put_text(&body, 2, container);
	put_number(&body, 3, (uint64_t)task.pid);
	put_end(&body, 4);
	event("/tasks/exit", "containerd.events.TaskExit", &body);
}

static void delete(struct out *out)
{
	put_number(out, 1, (uint64_t)task.pid);
	put_end(out, 2);
	if (!bare)
		return;
	char rootfs[600];
	snprintf(rootfs, sizeof rootfs, "%s/rootfs", task.bundle);
	each_group("remove");
	check(umount2(rootfs, MNT_DETACH), rootfs);
	struct out body = {0};
	put_text(&body, 1, container);
	put_number(&body, 2, (uint64_t)task.pid);
	put_end(&body, 3);
	event("/tasks/delete", "containerd.events.TaskDelete", &body);
}

static void state(struct out *out)
{
	put_text(out, 1, container);
	put_text(out, 2, task.bundle);
	put_number(out, 3, (uint64_t)task.pid);
	put_number(out, 4, (uint64_t)task.status);
	if (task.status == STOPPED)
		put_end(out, 9);
}

// A pod's own requests: as `null` it holds nothing.
static bool of_sandbox(struct bytes method, struct out *out)
{
	struct timespec now;
	struct out platform = {0};
	clock_gettime(CLOCK_REALTIME, &now);
	if (is(method, "StartSandbox")) {
		put_number(out, 1, (uint64_t)getpid());
		put_time(out, 2, now);
	} else if (is(method, "Platform")) {
		put_text(&platform, 1, "linux");
		put_text(&platform, 2, "amd64");
		put_bytes(out, 1, platform.at, platform.length);
	} else if (is(method, "SandboxStatus")) {
		put_text(out, 1, container);
		put_number(out, 2, (uint64_t)getpid());
		put_text(out, 3, "SANDBOX_READY");
		put_time(out, 5, now);
	} else {
		return is(method, "CreateSandbox") || is(method, "PingSandbox") || is(method, "StopSandbox");
	}
	return true;
}

// True when it is to end.
static bool serve(int fd, uint32_t stream, struct bytes request)
{
	struct bytes method = field(request, 2), payload = field(request, 3);
	struct out out = {0};

	if (is(method, "Connect")) {
		put_number(&out, 1, (uint64_t)getpid());
		put_number(&out, 2, (uint64_t)task.pid);
	} else if (is(method, "Create")) {
		create(payload);
		put_number(&out, 1, (uint64_t)task.pid);
	} else if (is(method, "Start")) {
		start();
		put_number(&out, 1, (uint64_t)task.pid);
	} else if (is(method, "State")) {
		state(&out);
	} else if (is(method, "Wait") || is(method, "WaitSandbox")) {
		if (task.status == STOPPED) {
			put_end(&out, 1);
		} else {
			size_t free = 0;
			while (free < WAITS - 1 && waits[free].fd != 0)
				free++;
			waits[free].fd = fd;
			waits[free].stream = stream;
			return false;
		}
	} else if (is(method, "Delete")) {
		delete(&out);
	} else if (!is(method, "Kill") && !is(method, "Shutdown") && !is(method, "ShutdownSandbox") && !of_sandbox(method, &out)) {
		refuse(fd, stream);
		return false;
	}
	answer(fd, stream, &out);
	return is(method, "Shutdown") || is(method, "ShutdownSandbox");
}

static struct client {
	int fd;
	size_t length;
	uint8_t *at;
} clients[CLIENTS];

// True when it is to end.
static bool hear(struct client *client)
{
	if (!client->at)
		client->at = malloc(MOST);
	ssize_t got = recv(client->fd, client->at + client->length, MOST - client->length, 0);
	if (got <= 0) {
		close(client->fd);
		client->fd = -1;
		client->length = 0;
		return false;
	}
	client->length += (size_t)got;
	for (;;) {
		const uint8_t *at = client->at;
		size_t length = client->length < HEADER ? 0 : (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
		if (client->length < HEADER || client->length < HEADER + length)
			return false;
		uint32_t stream = (uint32_t)at[4] << 24 | (uint32_t)at[5] << 16 | (uint32_t)at[6] << 8 | at[7];
		if (serve(client->fd, stream, (struct bytes){at + HEADER, length}))
			return true;
		client->length -= HEADER + length;
		memmove(client->at, client->at + HEADER + length, client->length);
	}
}

static void serve_all(int listener)
{
	static uint8_t nothing[4096];
	for (;;) {
		struct pollfd on[CLIENTS + 3] = {{listener, POLLIN, 0}, {task.pidfd, POLLIN, 0}, {task.events, POLLIN, 0}};
		for (size_t i = 0; i < CLIENTS; i++)
			on[3 + i] = (struct pollfd){clients[i].fd, POLLIN, 0};
		check(poll(on, LEN(on), -1), "poll");
		if (on[0].revents) {
			size_t free = 0;
			while (free < CLIENTS - 1 && clients[free].fd >= 0)
				free++;
			clients[free].fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		}
		if (on[1].revents)
			reap();
		if (on[2].revents)
			check(recv(task.events, nothing, sizeof nothing, 0), "events");
		for (size_t i = 0; i < CLIENTS; i++)
			if (on[3 + i].revents && hear(&clients[i]))
				return;
	}
}

static void start_server(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	mkdir("/run/containerd", 0711);
	mkdir("/run/containerd/s", 0711);
	snprintf(at.sun_path, sizeof at.sun_path, "/run/containerd/s/%s-%s", namespace, container);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(bind(listener, (struct sockaddr *)&at, sizeof at), at.sun_path);
	check(listen(listener, CLIENTS), at.sun_path);
	pid_t pid = fork();
	check(pid, "fork");
	if (pid > 0) {
		dprintf(STDOUT_FILENO, "unix://%s", at.sun_path);
		return;
	}
	setsid();
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		check(dup2(null, fd), "/dev/null");
	close(null);
	for (size_t i = 0; i < CLIENTS; i++)
		clients[i].fd = -1;
	task.event = 2;
	serve_all(listener);
	unlink(at.sun_path);
}

int main(int argc, char *argv[])
{
	bare = strstr(argv[0], "containerd-shim-bare-") != NULL;
	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "-namespace") == 0)
			namespace = argv[i + 1];
		if (strcmp(argv[i], "-id") == 0)
			container = argv[i + 1];
	}
	const char *action = argc > 1 ? argv[argc - 1] : "";
	if (!namespace || !container) {
		dprintf(STDERR_FILENO, "usage: containerd-shim-null-v2 -namespace NAMESPACE -id ID start | delete\n");
		return 2;
	}
	if (strcmp(action, "start") == 0)
		start_server();
	if (strcmp(action, "delete") == 0) {
		struct out out = {0};
		clock_gettime(CLOCK_REALTIME, &task.ended);
		task.exit = 137;
		put_end(&out, 2);
		check(write(STDOUT_FILENO, out.at, out.length), "stdout");
	}
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// The first process of a pod: waits, reaps whoever is given to it, and ends on SIGTERM or SIGINT. Must never do anything else.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
    (void)signal;
    _exit(0);
}

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int main(void) {
    struct sigaction ends = {.sa_handler = end}, reaps = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    if (sigaction(SIGTERM, &ends, NULL) || sigaction(SIGINT, &ends, NULL) || sigaction(SIGCHLD, &reaps, NULL)) {
        return 1;
    }
    for (;;) {
        pause();
    }
}

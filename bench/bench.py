#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of `make bench`; started by bench/run, which prepares the work directory and cleans up after it.

This script only decides and reports. Every command runs inside the lab (Debian sid, pure cgroup v2) below `timeit`, so
that neither Python nor a pipe is inside a measured interval. WORK is the same directory on both sides: /bench inside.

    bench.py --work WORK --prefix ID [--rounds N] [--out FILE] [--enforce] [--limits-in LINE] [--more FILE] NAME=PATH... -- DRIVER...

NAME=PATH are the runtimes by their path inside, DRIVER is the command line that starts timeit in the lab, LINE the one
(for a shell) that starts it where cgroups have the controllers for limits. What could not be measured is reported as
not measured, never left out in silence.
"""

import argparse
import collections
import contextlib
import datetime
import os
import pathlib
import random
import shlex
import signal
import statistics
import subprocess
import sys

import count
import report

INSIDE = "/bench"
VERBS = ("run", "create", "start", "exec", "delete -f", "state")
LIMITS = report.LIMITS  # the two verbs of Limited
FLOORS = ("floor-glibc", "floor-musl")
WARM_UP = 3
STOPS = (signal.SIGINT, signal.SIGTERM)
QUIET = 0.6  # a load average below this

Sample = collections.namedtuple("Sample", "wall cpu faults peak")  # µs, µs, count, KiB


class Failed(Exception):
    """A command failed; the message holds the command, its status and what it said."""


class Driver:
    """The other end of timeit."""

    def __init__(self, command, work):
        self.work = work
        self.process = subprocess.Popen(
            [*command, f"{INSIDE}/timeit", f"{INSIDE}/stdout", f"{INSIDE}/stderr"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: the driver must live until everything is taken down
        )

    def run(self, *argv, check=True):
        """Runs one command and returns its Sample."""
        try:
            self.process.stdin.write("\t".join(("1", *argv)) + "\n")
            self.process.stdin.flush()
            status, wall, *rest = map(int, self.process.stdout.readline().split())
        except (BrokenPipeError, ValueError):
            raise SystemExit("bench: the driver in the lab is gone") from None
        if check and status != 0:
            said = (self.work / "stderr").read_text(errors="replace").strip() or "nothing on stderr"
            raise Failed(f"`{' '.join(argv)}`: status {status}: {said.splitlines()[-1]}")
        return Sample(wall / 1000, *rest)

    def output(self, *argv):
        """Runs one command and returns what it wrote to stdout."""
        self.run(*argv)
        return (self.work / "stdout").read_text(errors="replace")

    def close(self):
        """Lets the driver end, and kills what does not (a runtime that hangs is in the driver's process group)."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Command:
    """A subject that is one command line, to stand beside the runtimes' `run`: the floors, a bare process."""

    verbs = ("run",)

    def __init__(self, driver, name, *argv):
        self.driver, self.name, self.argv = driver, name, argv

    def prepare(self, _verb):
        """Does everything that comes before the timed part; returns the timed command line."""
        return self.argv

    def finish(self, _verb):
        """Does everything that comes after the timed part."""

    def measure(self, verb):
        sample = self.driver.run(*self.prepare(verb))
        self.finish(verb)
        return sample


class Runtime(Command):
    """A runtime and its containers: one that lives for a single step, one idle through the whole series."""

    verbs = VERBS

    def __init__(self, driver, name, path, prefix):
        super().__init__(driver, name, path, "--root", f"{INSIDE}/state/{name}")
        self.id, self.idle, self.idling = f"{prefix}-{name}", f"{prefix}-{name}-idle", False

    def command(self, verb, *arguments):
        return (*self.argv, *verb.split(), *arguments)

    def call(self, verb, *arguments, check=True):
        return self.driver.run(*self.command(verb, *arguments), check=check)

    def create(self, bundle, container):
        self.call("create", "--bundle", f"{INSIDE}/{bundle}", container)

    def prepare(self, verb):
        if verb in ("run", "create"):
            return self.command(verb, "--bundle", f"{INSIDE}/true", self.id)
        if verb == "start":
            self.create("true", self.id)
            return self.command(verb, self.id)
        if verb == "delete -f":
            self.create("sleep", self.id)
            self.call("start", self.id)
            return self.command(verb, self.id)
        if not self.idling:
            self.create("sleep", self.idle)
            self.call("start", self.idle)
            self.idling = True
        return self.command(verb, self.idle, *(("true",) if verb == "exec" else ()))

    def finish(self, verb):
        if verb in ("create", "start"):
            self.call("delete -f", self.id)

    def abandon(self):
        """After a failure: whatever is left of the short-lived container goes, or the next step fails as well."""
        self.call("delete -f", self.id, check=False)


class Limited(Runtime):
    """The same runtime where cgroups have controllers: what all common limits add to a create."""

    verbs = LIMITS

    def __init__(self, driver, name, path, prefix):
        super().__init__(driver, name, path, prefix)
        self.id += "-limits"

    def prepare(self, verb):
        bundle = "limits" if verb == LIMITS[1] else "true"
        return self.command("create", "--bundle", f"{INSIDE}/{bundle}", self.id)

    def finish(self, _verb):
        self.call("delete -f", self.id)


class Results:
    """All that was found out. `samples` and `counts` by (subject, verb); `failures` likewise: why there are none."""

    def __init__(self):
        self.subjects, self.versions, self.notes = [], {}, []
        self.samples = collections.defaultdict(list)
        self.counts, self.waiting, self.failures, self.environment = {}, {}, {}, []

    def attempt(self, subject, verb, action):
        """The outcome of `action`, or None and a note of the failure: a broken verb must not stop the others."""
        try:
            return action()
        except Failed as failure:
            self.failures.setdefault((subject.name, verb), str(failure))
            if isinstance(subject, Runtime):
                subject.abandon()
            return None

    def median(self, name, verb, field):
        """The median (of peak memory: the maximum) of all samples, or None."""
        values = self.values(name, verb, field)
        if not values:
            return None
        return max(values) if field == "peak" else statistics.median(values)

    def minimum(self, name, verb, field):
        """The smallest of all samples, or None: what the machine can do when nobody disturbs it."""
        return min(self.values(name, verb, field), default=None)

    def values(self, name, verb, field):
        return [getattr(sample, field) for sample in self.samples.get((name, verb), ())]


def measure(results, rounds):
    """The series itself: each round does every (subject, verb) once, in an order of its own."""
    units = [(subject, verb) for subject in results.subjects for verb in subject.verbs]
    for number in range(-WARM_UP, rounds):
        random.shuffle(units)
        for subject, verb in units:
            if (subject.name, verb) in results.failures:
                continue
            sample = results.attempt(subject, verb, lambda s=subject, v=verb: s.measure(v))
            if sample is not None and number >= 0:
                results.samples[subject.name, verb].append(sample)
        if sys.stderr.isatty():
            print(f"\rbench: round {max(number + 1, 0)} of {rounds} ", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def look_closer(results, work):
    """What needs one call each and no clock: versions, system calls, the waiting container, the look from inside."""
    for subject in results.subjects:
        for verb in subject.verbs:
            if (subject.name, verb) not in results.failures:
                results.counts[subject.name, verb] = results.attempt(
                    subject, verb, lambda s=subject, v=verb: count.calls(s, v, work, INSIDE)
                )
        if type(subject) is not Runtime:
            continue
        path = subject.argv[0]
        version = results.attempt(subject, "--version", lambda p=path: subject.driver.output(p, "--version"))
        results.versions[subject.name] = (version or "?").splitlines()[0]
        if (subject.name, "create") not in results.failures:
            results.waiting[subject.name] = results.attempt(subject, "waiting", lambda s=subject: count.waiting(s))


def compare_insides(results, prefix, runtimes):
    """Is the floor's container what the runtimes make? Notes every difference seen by a program inside."""
    seen = {}
    for subject in results.subjects:
        if subject.name in FLOORS:
            argv = (*subject.argv[:3], "/bin/sh", "/look")
        elif subject.name in runtimes and not isinstance(subject, Limited):
            argv = subject.command("run", "--bundle", f"{INSIDE}/look", subject.id)
        else:
            continue
        text = results.attempt(subject, "look", lambda s=subject, a=argv: s.driver.output(*a))
        if text is not None:
            seen[subject.name] = set(text.replace(prefix, "ID").splitlines())
    results.notes += count.differences(seen, FLOORS[0])


def stop(*_):
    """Every way of being told to stop takes the same way out, once, past `finally`; bench/run removes what is left."""
    for number in STOPS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--limits-in", default="")
    parser.add_argument("--more", type=pathlib.Path, help="a section that was measured elsewhere")
    parser.add_argument("--enforce", action="store_true", help="exit 1 if a target is missed or was not measured")
    parser.add_argument("runtimes", nargs="+", metavar="NAME=PATH")
    own, driver = sys.argv[1:], []
    if "--" in own:
        own, driver = own[: own.index("--")], own[own.index("--") + 1 :]
    parsed = parser.parse_args(own)
    parsed.runtimes = dict(pair.split("=", 1) for pair in parsed.runtimes)
    return parsed, driver


def main():
    args, command = arguments()
    for number in STOPS:
        signal.signal(number, stop)
    if os.getloadavg()[0] > QUIET:
        print(f"bench: the load average is {os.getloadavg()[0]:.2f}: not a quiet machine", file=sys.stderr)
    driver = Driver(command, args.work)
    limited = Driver(shlex.split(args.limits_in), args.work) if args.limits_in else None
    results = Results()
    results.subjects.append(Command(driver, "bare process", f"{INSIDE}/true/rootfs/bin/busybox", "true"))
    for name in FLOORS:
        cgroup, rootfs = f"/sys/fs/cgroup/{args.prefix}-{name}", f"{INSIDE}/true/rootfs"
        results.subjects.append(Command(driver, name, f"{INSIDE}/{name}", cgroup, rootfs, "/bin/true"))
    for name, path in args.runtimes.items():
        if path:
            results.subjects.append(Runtime(driver, name, path, args.prefix))
            if limited:
                results.subjects.append(Limited(limited, name, path, args.prefix))
        else:
            results.failures[name, "(all)"] = "no such program"
    try:
        before = os.getloadavg()[0]
        measure(results, args.rounds)
        after = os.getloadavg()[0]
        look_closer(results, args.work)
        compare_insides(results, args.prefix, args.runtimes)
    except KeyboardInterrupt:
        raise SystemExit("bench: interrupted") from None
    finally:
        driver.close()
        if limited:
            limited.close()
    kernel = os.uname()
    results.environment = [
        f"{datetime.date.today()}; Linux {kernel.release} {kernel.machine}, {os.cpu_count()} CPUs",
        f"{args.rounds} rounds after {WARM_UP} to warm up, order shuffled in each",
        f"load average {before:.2f} before, {after:.2f} after (the benchmark itself adds about 1)",
    ]
    text = report.render(results, VERBS + LIMITS, args.runtimes)
    if args.more:
        text += "\n\n" + args.more.read_text().strip()
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    if args.enforce and not report.targets_met(results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

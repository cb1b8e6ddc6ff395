#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What systemd's driver adds to a create, as a section of the benchmark's page; for a guest with systemd as pid 1.

    systemd.py ROUNDS NAME=PATH...

/bench is the work directory that bench/run prepared. Beside each runtime with files and with systemd stands systemd's own
time: a client that does nothing but connect, ask for such a scope and wait until systemd says that its job is done.
"""

import collections
import pathlib
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import time

import bench

PRIVATE = "/run/systemd/private"


class Systemd(bench.Runtime):
    """A runtime that has its groups made by systemd."""

    verbs = ("create",)

    def __init__(self, driver, name, path, prefix):
        super().__init__(driver, name, path, prefix + "-systemd")
        self.argv = (*self.argv, "--systemd-cgroup")


class Files(bench.Runtime):
    """The same with files."""

    verbs = ("create",)


class Message(bytearray):
    """D-Bus marshalling (D-Bus specification, "Marshaling"), little endian, as much as one call takes."""

    def align(self, size):
        self.extend(bytes(-len(self) % size))
        return self

    def number(self, value):
        self.align(4).extend(struct.pack("<I", value))
        return self

    def text(self, value):
        self.number(len(value)).extend(value.encode() + b"\0")
        return self

    def signature(self, value):
        self.extend(bytes([len(value)]) + value.encode() + b"\0")
        return self

    def array(self, alignment, content):
        """`content(message)` appends the elements; their length is filled in."""
        at = len(self.number(0)) - 4
        begin = len(self.align(alignment))
        content(self)
        struct.pack_into("<I", self, at, len(self) - begin)
        return self

    def property(self, name, signature, value):
        self.align(8).text(name).signature(signature)
        value(self)


# The default container's, as systemd takes them.
DEVICES = [(f"/dev/char/{node}", "rwm") for node in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "10:200")]
DEVICES += [("char-136", "rwm"), ("block-*", "m"), ("char-*", "m")]


def start_transient_unit(unit, pid):
    """StartTransientUnit(name, mode, properties, aux) of systemd's manager, for a container's scope with `pid` in it."""

    def devices(body):
        for node, access in DEVICES:
            body.align(8).text(node).text(access)

    def properties(body):
        body.property("PIDs", "au", lambda body: body.array(4, lambda body: body.number(pid)))
        for name in ("Delegate", "MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"):
            body.property(name, "b", lambda body: body.number(1))
        body.property("DefaultDependencies", "b", lambda body: body.number(0))
        for name, value in (("Slice", "system.slice"), ("CollectMode", "inactive-or-failed"), ("DevicePolicy", "strict")):
            body.property(name, "s", lambda body, value=value: body.text(value))
        body.property("DeviceAllow", "a(ss)", lambda body: body.array(8, devices))

    body = Message().text(unit).text("fail").array(8, properties).array(8, lambda body: None)

    def fields(head):
        for code, signature, value in (
            (1, "o", "/org/freedesktop/systemd1"),
            (2, "s", "org.freedesktop.systemd1.Manager"),
            (3, "s", "StartTransientUnit"),
        ):
            head.align(8).append(code)
            head.signature(signature).text(value)
        head.align(8).append(8)
        head.signature("g").signature("ssa(sv)a(sa(sv))")

    head = Message(b"l\1\0\1").number(len(body)).number(1).array(8, fields).align(8)
    return bytes(head + body)


def scope(unit):
    """Makes a scope for a process of ours; the time until systemd has done it, in µs."""
    sleeper = subprocess.Popen(["sleep", "100"])
    call = start_transient_unit(unit, sleeper.pid)
    begin = time.perf_counter_ns()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.settimeout(20)
        bus.connect(PRIVATE)
        bus.sendall(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")
        said = bus.recv(4096)
        if not said.startswith(b"OK"):
            raise SystemExit(f"systemd says {said!r}")
        bus.sendall(call)
        said = b""
        # JobRemoved(id, job, unit, result): the signal's name stands in its head, the unit and the result in its body.
        while not re.search(rb"JobRemoved.*%b\0+\x04\0\0\0done" % re.escape(unit.encode()), said, re.DOTALL):
            more = bus.recv(65536)
            if not more:
                raise SystemExit(f"systemd says no more than {said!r}")
            said += more
    took = (time.perf_counter_ns() - begin) / 1000
    sleeper.kill()
    sleeper.wait()
    return took


def manager():
    """The processor time that systemd has used, in µs; a guest counts it in ticks of 10 ms: only means tell."""
    return int(pathlib.Path("/proc/1/schedstat").read_text().split()[0]) / 1000


def measure(subjects, rounds):
    """Samples (wall, systemd's processor time meanwhile) in µs by (class, name); the bare client's by its own name."""
    samples = collections.defaultdict(list)
    for number in range(-bench.WARM_UP, rounds):
        for subject in random.sample(subjects, len(subjects)):
            if subject is None:
                key, sample = "systemd", (scope(f"corten-bench-{number + bench.WARM_UP}.scope"), 0)
            else:
                argv, before = subject.prepare("create"), manager()
                wall = subject.driver.run(*argv).wall
                key, sample = (type(subject), subject.name), (wall, manager() - before)
                subject.finish("create")
            if number >= 0:
                samples[key].append(sample)
    return samples


def page(samples, names):
    """The section."""
    minimum = lambda key: min(wall for wall, _ in samples[key])
    lines = [
        "## create with systemd's driver",
        "",
        "In a User Mode Linux guest (one CPU) with systemd as pid 1: minima in µs of",
        f"{len(samples['systemd'])} rounds. `more` is what the driver adds; of it `systemd` is the processor time",
        "of pid 1 (a mean: it is counted in ticks of 10 ms), `own` the rest. A client that",
        f"only connects, asks for such a scope and waits for its job takes {minimum('systemd'):.0f}.",
        "",
        "|  | files | systemd's driver | more | systemd | own |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        files, driver = minimum((Files, name)), minimum((Systemd, name))
        used = lambda kind: statistics.mean(used for _, used in samples[kind, name])
        more, theirs = driver - files, used(Systemd) - used(Files)
        lines.append(f"| {name} | {files:.0f} | {driver:.0f} | {more:.0f} | {theirs:.0f} | {more - theirs:.0f} |")
    return "\n".join(lines)


def main():
    rounds, *pairs = sys.argv[1:]
    # A runtime's state lies on a tmpfs, not on the shared directory.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{bench.INSIDE}/state"], check=True)
    runtimes = dict(pair.split("=", 1) for pair in pairs)
    driver = bench.Driver([], pathlib.Path(bench.INSIDE))
    subjects = [None]
    runtimes = {name: path for name, path in runtimes.items() if path}
    for name, path in runtimes.items():
        subjects += [kind(driver, name, path, "corten-bench") for kind in (Files, Systemd)]
    samples = measure(subjects, int(rounds))
    driver.close()
    print(page(samples, runtimes))


if __name__ == "__main__":
    main()

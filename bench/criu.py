#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of `make bench-criu`: checkpoint and restore by corten and runc, in turns, natively.

    criu.py --corten PATH [--runc PATH] [--rounds N] [--out FILE]

A busybox that has touched 1, 64 and 512 MiB of memory is checkpointed and restored, each in turn by each runtime. CRIU's share is the time in
which the command has a child of that name; what is left is the runtime's own. Frozen is CRIU's own figure (stats-dump). CPU time and peak
memory (VmHWM) are the runtime's process's alone, not CRIU's; the former is the kernel's figure for the ended process, exact to the
nanosecond. The runtimes' state lies on a tmpfs, as /run is one. Needs root, criu in PATH (lab/build brings both peers), and a mount
namespace of its own (bench/criu).

Must never leave anything: all files are in a directory that is removed; the containers are deleted, also after Ctrl-C.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SIZES = ((1, 10), (64, 6), (512, 3))  # MiB, rounds
# The memory is dd's buffer: it waits for a reader that never reads.
SCRIPT = "exec </dev/null >/dev/null 2>&1; mkfifo /f; sleep 100000 </f & exec dd if=/dev/zero of=/f bs={}M count=1"
COLUMNS = ("checkpoint", "own", "own CPU", "frozen", "restore", "own", "own CPU", "peak KiB")


class Runtime:
    """A runtime, its state root, and the samples by size."""

    def __init__(self, name, path, work):
        self.name, self.path, self.root = name, path, work / "run" / name
        self.id = f"criu-bench-{os.getpid()}-{name}"
        self.samples = {}

    def argv(self, *words):
        return [self.path, "--root", str(self.root), *words]

    def quiet(self, *words, check=True):
        done = subprocess.run(self.argv(*words), stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        if check and done.returncode != 0:
            raise SystemExit(f"bench: {self.name} {words[0]}: {done.stderr.decode(errors='replace').strip()[-400:]}")
        return done.stdout

    def timed(self, log, *words):
        """Runs one command: seconds, the peak of its memory in KiB, its own CPU seconds, and those in which it had a CRIU."""
        with open(log, "wb") as output:
            begun = time.monotonic()
            child = subprocess.Popen(self.argv(*words), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            watch = Watch(child.pid)
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            took = time.monotonic() - begun
            # The clock of all its threads, which is there until it is waited for (clock_getcpuclockid(3)).
            cpu = time.clock_gettime(~child.pid << 3 | 2)
            peak, criu = watch.end()
            status = child.wait()
        if status != 0:
            raise SystemExit(f"bench: {self.name} {words[0]}: {pathlib.Path(log).read_text(errors='replace')[-400:]}")
        return took, peak, cpu, criu


class Watch(threading.Thread):
    """Looks every half a millisecond until a process has ended: the peak of its memory, which only grows, and how long it had a CRIU."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.proc, self.over = pathlib.Path(f"/proc/{pid}"), False
        self.kib, self.criu = 0, 0.0
        self.start()

    def look(self):
        """The peak in KiB, and whether a CRIU is there."""
        there = False
        for thread in (self.proc / "task").iterdir():
            for child in (thread / "children").read_text().split():
                there = there or pathlib.Path(f"/proc/{child}/comm").read_text() == "criu\n"
        peak = re.search(r"VmHWM:\s+(\d+)", (self.proc / "status").read_text())
        return int(peak[1]) if peak else 0, there

    def run(self):
        last = time.monotonic()
        while not self.over:
            try:
                peak, there = self.look()
            except (OSError, IndexError):
                peak, there = 0, False
            self.kib = max(self.kib, peak)
            now = time.monotonic()
            if there:
                self.criu += now - last
            last = now
            time.sleep(0.0005)

    def end(self):
        self.over = True
        self.join()
        return self.kib, self.criu


def varints(data):
    """The numbers of a protobuf message, by field; what is nested comes as bytes."""
    at, fields = 0, {}

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            fields[tag >> 3] = number()
        elif tag & 7 == 2:
            size = number()
            fields[tag >> 3], at = data[at : at + size], at + size
        else:
            break
    return fields


def frozen(images):
    """Seconds for which the processes stood still: stats-dump, past two magics and a length."""
    entry = varints((images / "stats-dump").read_bytes()[12:])
    dump = varints(entry[1])
    return (dump[1] + dump[2]) / 1e6


def make_bundle(runtime, work, busybox, size):
    bundle = work / f"bundle-{runtime.name}-{size}"
    bundle.mkdir()
    subprocess.run(["cp", "-a", busybox, bundle / "rootfs"], check=True)
    runtime.quiet("spec", "--bundle", str(bundle))
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/sh", "-c", SCRIPT.format(size)])
    config["root"]["readonly"] = False
    config["linux"]["cgroupsPath"] = f"/{runtime.id}"
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def until_touched(runtime, size):
    """Waits until the container's memory is there."""
    for _ in range(3000):
        pid = json.loads(runtime.quiet("state", runtime.id))["pid"]
        found = re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        if found and int(found[1]) >= size * 1024:
            return
        time.sleep(0.01)
    raise SystemExit(f"bench: {runtime.name}: the memory is not touched")


def trip(runtime, work, bundle, size):
    """One checkpoint and one restore: a row of figures as in COLUMNS."""
    images = work / f"images-{runtime.name}"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(mode=0o700)
    log = work / "log"
    runtime.timed(log, "run", "--detach", "--bundle", str(bundle), runtime.id)
    until_touched(runtime, size)
    down, peak, down_cpu, down_criu = runtime.timed(log, "checkpoint", "--image-path", str(images), runtime.id)
    (bundle / "rootfs/f").exists() or os.mkfifo(bundle / "rootfs/f")
    words = ("restore", "--detach", "--bundle", str(bundle), "--image-path", str(images), "--work-path", str(images))
    up, restore_peak, up_cpu, up_criu = runtime.timed(log, *words, runtime.id)
    still = frozen(images)
    runtime.quiet("delete", "--force", runtime.id)
    (bundle / "rootfs/f").unlink()
    times = (down, down - down_criu, down_cpu, still, up, up - up_criu, up_cpu)
    return (*(value * 1000 for value in times), max(peak, restore_peak))


def table(runtimes):
    lines = ["| MiB | runtime | " + " | ".join(COLUMNS) + " |", "| ---: | --- " + "| ---: " * len(COLUMNS) + "|"]
    for size, _ in SIZES:
        for runtime in runtimes:
            rows = runtime.samples[size]
            middle = [statistics.median(column) for column in zip(*rows)]
            lines.append(f"| {size} | {runtime.name} | " + " | ".join(f"{value:.1f}" for value in middle[:-1]) + f" | {middle[-1]:.0f}" + " |")
    return "\n".join(lines)


def ratios(runtimes):
    """Of ours to the other's own share and memory, over all sizes."""
    ours, other = runtimes

    def middle(runtime, column):
        return statistics.median(row[column] for rows in runtime.samples.values() for row in rows)

    named = (
        (1, "checkpoint without CRIU"),
        (2, "its own CPU time"),
        (5, "restore without CRIU"),
        (6, "its own CPU time"),
        (7, "peak memory"),
    )
    lines = (f"- {what}: {middle(ours, column) / middle(other, column):.2f} × {other.name}'s" for column, what in named)
    return "\n".join([*lines, "- aim: ours without CRIU's share ≤ 0.3 × runc's"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corten", required=True)
    parser.add_argument("--runc", required=True)
    parser.add_argument("--busybox", required=True, help="a root file system")
    parser.add_argument("--rounds", type=float, default=1, help="so many times the usual number")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root")
    if not shutil.which("criu"):
        raise SystemExit("bench: no criu in PATH")
    work = pathlib.Path(tempfile.mkdtemp(prefix="corten-criu-bench."))
    (work / "run").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "state", work / "run"], check=True)
    runtimes = [Runtime("corten", args.corten, work), Runtime("runc", args.runc, work)]
    before = os.getloadavg()[0]
    try:
        for size, rounds in SIZES:
            bundles = [make_bundle(runtime, work, args.busybox, size) for runtime in runtimes]
            for number in range(max(1, round(rounds * args.rounds)) + 1):
                for runtime, bundle in zip(runtimes, bundles):
                    row = trip(runtime, work, bundle, size)
                    if number:  # the first warms up
                        runtime.samples.setdefault(size, []).append(row)
    finally:
        for runtime in runtimes:
            runtime.quiet("delete", "--force", runtime.id, check=False)
        subprocess.run(["umount", work / "run"], check=False)
        shutil.rmtree(work, ignore_errors=True)
    criu = subprocess.run(["criu", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    text = "\n\n".join(
        (
            "# Checkpoint and restore: benchmarks",
            "Medians in ms, natively; `make bench-criu` makes this page. `own` is a command's time while no CRIU is there, frozen\n"
            "is how long the processes stood still, peak KiB the runtime's own memory. crun is not measured: its restore fails, and makes\n"
            "the groups of others on the host anew.",
            f"- {datetime.date.today()}; Linux {os.uname().release} {os.uname().machine}, {os.cpu_count()} CPUs; CRIU {criu.split()[-1]}\n"
            f"- load average {before:.2f} before; the runtimes in turns",
            table(runtimes),
            ratios(runtimes),
        )
    )
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())

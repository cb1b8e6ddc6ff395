#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bench/scale has measured (spec-tests scale: a JSON object a line) as a page and a plot.

    scale.py CORTEN RUNC [--out PAGE]
    scale.py CORTEN --check

PAGE.svg beside PAGE. Without --out the page is printed alone. --check asks only for what no busy machine changes.
"""

import argparse
import datetime
import json
import os
import pathlib
import sys

import plot

AIMS = (
    ("shims together, PSS, MiB", lambda first, last, end: last["pss"] / 1024, 150),
    ("Create and Start, times those with one", lambda first, last, end: last["start"] / first["start"], 1.3),
    ("the runtime's `list`, ms", lambda first, last, end: last["ls"], 30),
    ("a task's State, times that with one", lambda first, last, end: last["state"] / first["state"], 1.3),
    ("deleting all, s", lambda first, last, end: end["seconds"], 15),
    ("groups left", lambda first, last, end: end["groups"], 0),
)
COLUMNS = (("start", "Create + Start"), ("end", "Kill + Wait + Delete"), ("state", "State"), ("list", "Tasks.List"), ("ls", "`list`"))


def read(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "alive" in line], next(line for line in lines if "deleted" in line)


def table(name, points):
    head = ["| alive | " + " | ".join(title for _, title in COLUMNS) + " | shims' PSS, MiB | mounts |", "| ---: " * (len(COLUMNS) + 3) + "|"]
    rows = (
        f"| {point['alive']} | " + " | ".join(f"{point[key]:.1f}" for key, _ in COLUMNS) + f" | {point['pss'] / 1024:.1f} | {point['mounts']} |"
        for point in points
    )
    return "\n".join([f"## {name}", "", *head, *rows])


def aims(points, end):
    first, last = points[0], points[-1]
    lines = [f"| with {last['alive']} alive | measured | aim |", "| --- | ---: | ---: |"]
    for what, measure, most in AIMS:
        value = measure(first, last, end)
        lines.append(f"| {what} | {value:.4g} | ≤ {most}{'' if value <= most else ' (missed)'} |")
    return "\n".join(lines)


def curves(runtimes, key, scale=1):
    return {name: [(point["alive"], point[key] / scale) for point in points] for name, (points, _) in runtimes.items()}


def check(points, end):
    """What holds on a machine that has other things to do; the exit code."""
    last = points[-1]
    checks = (
        ("scale/memory-of-a-shim", last["pss"] / last["shims"] <= 400, f"{last['pss'] / last['shims']:.0f} KiB each of {last['shims']}, most is 400"),
        ("scale/a-shim-for-each", last["shims"] == last["alive"], f"{last['shims']} shims for {last['alive']} containers"),
        ("scale/one-mount-for-each", last["mounts"] - end["mounts"] == last["alive"], f"{last['mounts']} mounts, {end['mounts']} after all were deleted"),
        ("scale/no-group-left", end["groups"] == 0, f"{end['groups']} left"),
    )
    for name, holds, words in checks:
        print(f"PASS {name}" if holds else f"FAIL {name}: {words}")
    failed = sum(not holds for _, holds, _ in checks)
    print(f"{len(checks) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corten", type=pathlib.Path)
    parser.add_argument("runc", type=pathlib.Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    if args.check:
        return check(*read(args.corten))
    if not args.runc:
        parser.error("wants the figures of runc as well")
    runtimes = {"Corten": read(args.corten), "Go shim and runc": read(args.runc)}
    (points, end), (go, go_end) = runtimes.values()
    facts = (
        f"- {datetime.date.today()}; Linux {os.uname().release} {os.uname().machine}, {os.cpu_count()} CPUs; containerd 2.1; load average {os.getloadavg()[2]:.2f} over the\n"
        "  last fifteen minutes\n"
        f"- all deleted by eight at once: Corten {end['deleted']} in {end['seconds']:.1f} s, the Go shim {go_end['deleted']} in {go_end['seconds']:.1f} s; groups and shims left: "
        f"{end['groups']} and {go_end['groups']}\n"
        f"- a shim's PSS with as many alive: Corten {points[-1]['pss'] / points[-1]['shims']:.0f} KiB, the Go shim {go[-1]['pss'] / go[-1]['shims']:.0f} KiB"
    )
    page = [
        "# A thousand containers on one node",
        "Alive in one containerd, each with a shim of its own and a root file system of its own (an overlay), natively; `make scale` makes this page. At each\n"
        "point one container more is made and ended fifteen times; the medians in ms. Create and Start are what containerd's client\n"
        "waits for, the shim's start among it. Tasks.List is containerd's, which asks every shim in turn; `list` is the runtime's command.",
        facts,
        aims(points, end),
    ]
    if args.out:
        picture = args.out.with_suffix(".svg")
        panels = [plot.panel("All shims", "MiB", curves(runtimes, "pss", 1024)), plot.panel("Create and Start of one more", "ms", curves(runtimes, "start"))]
        picture.write_text(plot.picture(panels, "containers alive"))
        page.append(f"![memory and time by containers alive]({picture.name})")
    page += [table(name, points) for name, (points, _) in runtimes.items()]
    text = "\n\n".join(page)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

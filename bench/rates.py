#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bench/rates has measured, as a section of a page and a plot.

    rates.py DIR [--out PAGE]

DIR has for each shim a file rates.SHIM (spec-tests rates: a JSON object a line) and SHIM.calls. The section replaces the one that PAGE has; PAGE's name with -rates.svg
is the plot. Without --out the section is printed alone.
"""

import argparse
import json
import os
import pathlib
import statistics

import plot

SHIMS = {
    "null": "no container at all",
    "bare": "bare system calls",
    "corten": "Corten",
    "go": "Go shim, runc",
    "rust": "containerd-runc-shim 0.2, runc",
}
WORKERS = (1, 4, 8)
TITLE = "## Containers a second, beside the floors"


def read(directory):
    """By shim: the medians of each number of workers, and the system calls of a container."""
    all_shims = {}
    for shim in SHIMS:
        path = directory / f"rates.{shim}"
        if not path.exists():
            continue
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        medians = {
            workers: {
                key: statistics.median(line[key] for line in lines if line.get("workers") == workers) for key in ("rate", "daemon", "executions", "servers")
            }
            for workers in WORKERS
        }
        # The last run was the counted one.
        counted = [line["all"] for line in lines if "all" in line][-1]
        medians["calls"] = int((directory / f"{shim}.calls").read_text()) / counted
        all_shims[shim] = medians
    return all_shims


def row(name, figures, bare):
    rates = " | ".join(f"{figures[workers]['rate']:.1f}" for workers in WORKERS)
    parts = " / ".join(f"{figures[workers]['rate'] / bare[workers]['rate']:.2f}" for workers in WORKERS)
    busy = figures[8]
    return (
        f"| {name} | {rates} | {parts} | {busy['daemon']:.1f} | {busy['executions']:.1f} | {busy['servers']:.1f} | {busy['servers'] / bare[8]['servers']:.2f} | "
        f"{figures['calls']:.0f} |"
    )


def section(shims, picture):
    head = [
        "| shim | containers/s, 1 at once | 4 | 8 | ÷ the floor's | CPU of each at 8, ms: containerd | `start`, `delete` | server and container | ÷ the floor's | system calls |",
        "|---" + "|---:" * 9 + "|",
    ]
    rows = [row(SHIMS[shim], figures, shims["bare"]) for shim, figures in shims.items()]
    words = (
        "A client makes containers of `true` and ends them, one, four and eight at once (`bench/rates`; overlays on tmpfs, cgroup "
        f"{'v2' if os.path.exists('/sys/fs/cgroup/cgroup.controllers') else 'v1'}). Two floors stand beside: a shim that makes no container shows\n"
        "what containerd itself takes, one that makes it by bare system calls what the kernel takes besides (bench/floor-shim.c). System calls are those of a container in all\n"
        f"processes but containerd's. Medians. Linux {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.2f}."
    )
    image = [f"![containers a second by workers]({picture})"] if picture else []
    return "\n\n".join([TITLE, words, "\n".join([*head, *rows]), *image]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    shims = read(args.directory)
    picture = args.out and args.out.with_name(f"{args.out.stem}-rates.svg")
    text = section(shims, picture and picture.name)
    print(text)
    if args.out:
        curves = {SHIMS[shim]: [(workers, figures[workers]["rate"]) for workers in WORKERS] for shim, figures in shims.items()}
        picture.write_text(plot.picture([plot.panel("Made and ended", "containers a second", curves)], "containers at once"))
        before = args.out.read_text().split(TITLE)[0].rstrip() if args.out.exists() else ""
        args.out.write_text(f"{before}\n\n{text}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Turns the results into Markdown, and knows what the project promises."""

import statistics

# (verb, field, compared with: None is an absolute number in µs, at most: None is only shown)
TARGETS = (
    ("run", "wall", "floor-glibc", 1.1),
    ("run", "wall", "floor-musl", None),
    ("run", "wall", "crun", 0.5),
    ("run", "wall", "runc", None),
    ("run", "wall", "youki", None),
    ("create", "wall", "crun", 0.4),
    ("start", "wall", "crun", 0.3),
    ("exec", "wall", "crun", 0.4),
    ("delete -f", "wall", "crun", None),
    ("delete -f", "wall", None, 1000),
    ("state", "wall", None, 400),
    ("run", "cpu", "crun", None),
    ("run", "peak", "crun", 0.99),
    ("create", "peak", "crun", 0.99),
    ("exec", "peak", "crun", 0.99),
)
LIMITS = ("create without limits", "create with all common limits")
LIMITS_COST = 300  # µs between the two
WAITING = 64  # KiB, resident, of a created container
OURS = "corten"
FIELDS = {"wall": "", "cpu": " (CPU time)", "peak": " (peak memory)"}

INTRODUCTION = """\
# Benchmarks

The default `spec` bundle with static busybox `true`, natively on pure cgroup v2, in the lab's Debian sid. `make bench`
makes this page. Wall and CPU are µs. CPU, minor faults and peak resident memory (KiB, the largest single process) are
the command's own and those of all processes it waited for: a detached container is not in them, and busybox's memory
is wherever the verb waits for the container. The kernel keeps that peak per CPU and in batches: it can be some 400 KiB
short, and is 0 for the smallest programs. Forks, threads, execs (the command's own is one) and system calls are of one
run under strace, until the command returned. `bare process` is busybox `true` without a container; the floors do only
the kernel work of `run` (bench/floor.c): no state, no configuration; no eBPF device filter either, which costs about
100 µs. The two creates around limits are where the host's cgroups have the controllers (here that may be v1): memory with
swap and reservation, CPU shares, quota, period, CPUs (all) and memory nodes, pids."""


def verdict(results, target):
    """(what, by the median, by the minimum, aim, met: True, False or None when it was not measured)"""
    verb, field, other, most = target
    what = f"{verb}{FIELDS[field]}" + (f" ÷ {other}" if other else "")
    aim = "" if most is None else f"≤ {most}" if other else f"≤ {most} µs"
    value, shown = compare(results.median, verb, field, other)
    if value is None:
        return what, "not measured", "", aim, None
    minimum = "" if field == "peak" else compare(results.minimum, verb, field, other)[1]
    return what, shown, minimum, aim, most is None or value <= most


def compare(statistic, verb, field, other, name=OURS):
    """`name`'s figure, divided by the other's if there is one: as a number and as text; (None, "") without samples."""
    value, base = statistic(name, verb, field), statistic(other, verb, field) if other else 1
    if value is None or not base:
        return None, ""
    return value / base, f"{value / base:.2f}" if other else f"{value:.0f} µs"


def limits_cost(results):
    """What all common limits add to a create: the row of a verdict; the median of the differences within each round."""
    what, aim = "all common limits, added to a create", f"≤ {LIMITS_COST} µs"
    medians, minima = ([of(OURS, verb, "wall") for verb in LIMITS] for of in (results.median, results.minimum))
    if None in medians:
        return what, "not measured", "", aim, None
    cost = statistics.median(b - a for a, b in zip(*(results.values(OURS, verb, "wall") for verb in LIMITS)))
    return what, f"{cost:.0f} µs", f"{minima[1] - minima[0]:.0f} µs", aim, cost <= LIMITS_COST


def verdicts(results):
    """All rows, the waiting container's last."""
    rows = [*(verdict(results, target) for target in TARGETS), limits_cost(results)]
    waiting = results.waiting.get(OURS)
    shown = f"{waiting.rss} KiB" if waiting else "not measured"
    return [*rows, ("waiting container, RSS", shown, "", f"≤ {WAITING} KiB", waiting and waiting.rss <= WAITING)]


def targets_met(results):
    """True when every promise was measured and kept."""
    return all(met for *_, aim, met in verdicts(results) if aim)


def table(head, rows):
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def verb_table(results, verb):
    ratios = ("floor-glibc", "crun") if verb == "run" else ("crun",)
    head = ["", "median", "min", "p90", *(f"÷ {other}" for other in ratios)]
    head += ["CPU", "faults", "peak KiB", "forks", "threads", "execs", "calls"]
    rows = []
    for name in (subject.name for subject in results.subjects if verb in subject.verbs):
        wall = sorted(results.values(name, verb, "wall"))
        if not wall:
            rows.append([name, "not measured", *[""] * (len(head) - 2)])
            continue
        times = (results.median(name, verb, "wall"), wall[0], wall[len(wall) * 9 // 10])
        costs = (results.median(name, verb, field) for field in ("cpu", "faults", "peak"))
        counts = results.counts.get((name, verb)) or ("?",) * 4
        quotients = [compare(results.median, verb, "wall", other, name)[1] for other in ratios]
        rows.append([name, *map(round, times), *quotients, *map(round, costs), *counts])
    return table(head, rows)


def render(results, verbs, wanted):
    """The whole page."""
    parts = [INTRODUCTION, "\n".join(f"- {line}" for line in results.environment + versions(results, wanted))]
    for verb in verbs:
        parts += [f"## {verb}", verb_table(results, verb)]
    rows = [[name, *(figures or ("not measured", "", ""))] for name, figures in results.waiting.items()]
    parts += ["## A waiting (created) container's init", table(["", "RSS KiB", "PSS KiB", "threads"], rows)]
    words = {True: "met", False: "**missed**", None: ""}
    rows = [[*columns, words[met] if columns[-1] else ""] for *columns, met in verdicts(results)]
    parts += [f"## {OURS} against the aims", table(["", "by medians", "by minima", "aim", ""], rows)]
    if results.failures:
        lines = (f"- {name} {verb}: {why}" for (name, verb), why in results.failures.items())
        parts += ["## Failed or not measured", "\n".join(lines)]
    if results.notes:
        parts += ["## Seen from inside", "\n".join(results.notes)]
    return "\n\n".join(parts)


def versions(results, wanted):
    return [f"{name}: {results.versions.get(name, 'not measured')}" for name in wanted]

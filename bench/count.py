# SPDX-License-Identifier: Apache-2.0
"""What is counted rather than timed: system calls, a waiting container's memory, a container seen from inside."""

import collections
import json
import re
import time

Calls = collections.namedtuple("Calls", "forks threads execs calls")
Waiting = collections.namedtuple("Waiting", "rss pss threads")  # KiB, KiB, count

CALL = re.compile(r"\d+ +(\w+)\(")
FORKS = ("clone", "clone3", "fork", "vfork")
EXECUTED = re.compile(r"\d+ +(execve(at)?\(|<\.\.\. execve(at)? resumed>).*= 0$")
PATIENCE = 30  # seconds for a command under strace


def calls(subject, verb, work, inside):
    """Counts what the command and all its descendants did until the command itself ended.

    strace stays with a created container's init, so it runs in the background and ends with the container.
    """
    trace = work / "trace"
    trace.unlink(missing_ok=True)
    command = subject.prepare(verb)
    script = 'exec strace -f -q -e signal=none -o "$0" "$@" &'
    subject.driver.run("sh", "-c", script, f"{inside}/trace", *command)
    lines = wait_for_end(trace)
    subject.finish(verb)
    return tally(lines)


def wait_for_end(trace):
    """The trace's lines up to the exit of its first process, as soon as that has happened."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
        if lines:
            first = lines[0].split(maxsplit=1)[0]
            ends = [i for i, line in enumerate(lines) if re.match(rf"{first} +\+\+\+ (exited|killed)", line)]
            if ends:
                return lines[: ends[0] + 1]
        time.sleep(0.02)
    return []


def tally(lines):
    names = [(match[1], line) for line in lines if (match := CALL.match(line))]
    clones = [line for name, line in names if name in FORKS]
    threads = sum("CLONE_THREAD" in line for line in clones)
    execs = sum(bool(EXECUTED.match(line)) for line in lines)
    return Calls(len(clones) - threads, threads, execs, len(names)) if names else None


def waiting(runtime):
    """The memory of a created container's init, which waits for `start`."""
    runtime.create("true", runtime.id)
    pid = json.loads(runtime.driver.output(*runtime.command("state", runtime.id)))["pid"]
    rollup = runtime.driver.output("cat", f"/proc/{pid}/smaps_rollup", f"/proc/{pid}/status")
    runtime.call("delete -f", runtime.id)
    fields = dict(re.findall(r"^(Rss|Pss|Threads):\s+(\d+)", rollup, re.MULTILINE))
    return Waiting(*(int(fields[name]) for name in ("Rss", "Pss", "Threads")))


def differences(seen, reference):
    """What each container shows that the reference's does not (+), and the other way round (-), as Markdown lines."""
    for name, lines in seen.items():
        if name == reference or reference not in seen:
            continue
        more, less = sorted(lines - seen[reference]), sorted(seen[reference] - lines)
        yield f"- {name} against {reference}: {f'{len(more)} more, {len(less)} less' if more + less else 'the same'}"
        yield from (f"  - `{sign} {line}`" for sign, some in (("+", more), ("-", less)) for line in some)

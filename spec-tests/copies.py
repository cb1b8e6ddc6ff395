# SPDX-License-Identifier: Apache-2.0
"""Copies of the sources that are changed on purpose, and built: what `attack` and `mutants` share."""

import os
import pathlib
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-musl"


def run(*words, **more):
    return subprocess.run(words, check=True, stdin=subprocess.DEVNULL, **more)


def tracked():
    """Names and bytes of what the tree has."""
    names = run("git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard", stdout=subprocess.PIPE).stdout
    return {name: (TOP / name).read_bytes() for name in filter(None, names.decode().split("\0")) if (TOP / name).is_file()}


def lay(texts, sources, kept=()):
    """Writes them below the directory, where there is nothing else then but what is kept. What is as it was keeps its time, and need not be
    built again."""
    names = {*texts, *kept}
    for at in [at for at in sources.rglob("*") if at.is_file() and str(at.relative_to(sources)) not in names]:
        at.unlink()
    for name, text in texts.items():
        at = sources / name
        if not at.exists() or at.read_bytes() != text:
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(text)
            at.chmod((TOP / name).stat().st_mode & 0o777 if (TOP / name).exists() else 0o644)


def cargo(verb, *words, sources, work, fails=False):
    """What cargo says on stdout, of the copy in `sources`. If it fails, unless that may be, this is the end."""
    words = ["cargo", verb, "--quiet", "--locked", "--profile", "fast", "--target", TARGET, *words]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(work / "target")}
    done = subprocess.run(words, cwd=sources, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=1800)
    if done.returncode and not fails:
        raise SystemExit(f"the copy does not build:\n{done.stderr.decode()[-3000:]}")
    return done.stdout.decode()


def built(sources, work, *words, what):
    """Builds, says how long it took, and returns the directory of the programs."""
    begun = time.monotonic()
    cargo("build", *words, sources=sources, work=work)
    print(f"=== {what} is built ({time.monotonic() - begun:.0f} s)", flush=True)
    return work / "target" / TARGET / "fast"

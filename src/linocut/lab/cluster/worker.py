"""What a node of a cluster does for one group of stages: clone, pull, run by DVC, push.

    a bundle of the commit, params.yaml, names of stages --run--> the remote, and an `Outcome`

This module needs DVC's command and nothing of this package: it travels to the node by value, so
that the node runs what the head has. A clone has the name of what is run in it. A task that is
tried again on a node finds there what the first try left, checkpoints too. DVC and its stages end
when the worker that started them is gone: a second try never meets the first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PLACE_VARIABLE = "LINOCUT_CLUSTER_DIR"
_GUARD = """
import os, signal, subprocess, sys, threading
def follow():
    os.read(0, 1)  # ends when the worker does
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=follow, daemon=True).start()
os._exit(subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode != 0)
"""
_SHOWN_LINES = 12


@dataclass(frozen=True)
class Work:
    """Stages that one task runs one after the other.

    Attributes:
        name: of the group, for people: an architecture or a cell.
        stages: as DVC names them, `train@cae-l2`.
        commit: of the code, in full.
        params: text of params.yaml.
        cores: that the task may use.
    """

    name: str
    stages: tuple[str, ...]
    commit: str
    params: str
    cores: int


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        name: of its group.
        host: where it ran.
        seconds: how long.
        ran: stages that were run; the others were in the cache.
        problem: the end of what was printed where it failed, else empty.
    """

    name: str
    host: str
    seconds: float
    ran: tuple[str, ...]
    problem: str = ""


class StepFailedError(Exception):
    """A command of a task did not succeed."""


def run(work: Work, bundle: bytes, *needed: Outcome) -> Outcome:
    """Do the work, unless something that it needs has failed.

    Args:
        work: what to run.
        bundle: the commit, as `git bundle` writes it.
        needed: outcomes of the tasks whose outputs this one reads.
    """
    began = time.monotonic()
    host = f"{socket.gethostname()} ({os.getpid()})"
    ran: tuple[str, ...] = ()
    problem = "; ".join(f"{one.name} failed" for one in needed if one.problem)
    if not problem:
        try:
            with clone_of(work, bundle) as clone:
                ran = run_stages(clone, work.stages, work.cores)
                shutil.rmtree(clone)  # what it made is in the remote, and in the cache of the node
        except (StepFailedError, OSError) as error:
            problem = str(error)
    return Outcome(work.name, host, time.monotonic() - began, ran, problem)


@contextlib.contextmanager
def clone_of(work: Work, bundle: bytes) -> Iterator[pathlib.Path]:
    """A clone of the commit that nobody else works in, with the parameters of the work."""
    place = os.environ.get(PLACE_VARIABLE)
    folder = pathlib.Path(place or pathlib.Path(tempfile.gettempdir(), f"linocut-{os.getuid()}"))
    key = hashlib.sha256(f"{work.commit}{work.params}".encode()).hexdigest()[:12]
    clone = folder.absolute() / key / work.name
    clone.parent.mkdir(parents=True, exist_ok=True)
    with clone.with_name(f"{work.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an earlier try is being ended
        if not clone.exists():
            _make_clone(work, bundle, clone)
        (clone / "params.yaml").write_text(work.params, encoding="utf-8")
        yield clone


def _make_clone(work: Work, bundle: bytes, clone: pathlib.Path) -> None:
    cache = str(clone.parents[1] / "cache")  # shared by all clones of the node
    with tempfile.TemporaryDirectory(dir=clone.parent) as name:
        folder, unfinished = pathlib.Path(name), pathlib.Path(name, "clone")
        packed = folder / "commit.bundle"
        packed.write_bytes(bundle)
        quietly = ("git", "clone", "--quiet", "--no-checkout", str(packed), str(unfinished))
        command(folder, work.cores, *quietly)
        command(unfinished, work.cores, "git", "checkout", "--quiet", "--detach", work.commit)
        (unfinished / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
        with contextlib.suppress(StepFailedError):  # numpy does the kernel's work, slower
            kernel = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
            command(unfinished, work.cores, *kernel)
        unfinished.rename(clone)


def run_stages(clone: pathlib.Path, stages: Sequence[str], cores: int) -> tuple[str, ...]:
    """Run stages by DVC and push what they made; the names of those that were not in the cache.

    Raises:
        StepFailedError: DVC fails; what the stages made until then is in the cache of the node.
    """
    printed = command(clone, cores, "dvc", "repro", "--pull", "--allow-missing", *stages)
    command(clone, cores, "dvc", "push", "--run-cache", *stages)
    return tuple(re.findall(r"^Running stage '(.*)':", printed, re.MULTILINE))


def command(folder: pathlib.Path, cores: int, *words: str) -> str:
    """What a command prints; it ends with this process, whatever ends that.

    Raises:
        StepFailedError: its status is not 0; says the end of what it printed.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DVC_", "GIT_DIR"))}
    environment = kept | {
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": str(cores),
        "LINOCUT_WORKERS": str(cores),
    }
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _GUARD, *words],
            cwd=folder,
            env=environment,
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)
    if done.returncode:
        raise StepFailedError(f"{' '.join(words[:2])}: {_end_of(done.stdout)}")
    return done.stdout


def _end_of(printed: str) -> str:
    """The last lines, without those of progress bars."""
    lines = [line.rstrip() for line in printed.splitlines() if not re.search(r"\d%\|", line)]
    return "\n".join([line for line in lines if line][-_SHOWN_LINES:])

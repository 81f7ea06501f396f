"""Threads wait without spinning wherever a process starts, unless the user says otherwise."""

import os
import pathlib
import subprocess
import sys

import pytest

from linocut.lab.config import process

ROOT = pathlib.Path(__file__).resolve().parents[3]
SAYS = "import os; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in __import__('sys').modules)"


def environment_after(first, **variables):
    """What a process that imports these has in its environment."""
    clean = {k: v for k, v in os.environ.items() if k not in process.CHOICES}
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", f"import {first}; {SAYS}"]
    return subprocess.run(
        command, env=clean | path | variables, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()


@pytest.mark.parametrize("first", ["linocut.lab.config.stage", "benchmarks"])
def test_it_is_set_before_torch_is_there(first):
    assert environment_after(first) == [process.WAITING["GOMP_SPINCOUNT"], "False"]


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")]
)
def test_what_the_user_chose_is_left_alone(name, value):
    expected = value if name == "GOMP_SPINCOUNT" else "None"
    assert environment_after("linocut.lab.config.stage", **{name: value})[0] == expected

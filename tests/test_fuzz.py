"""Damaged files are refused or decoded, never worse: a small part of benchmarks/fuzz.py."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzz

COUNT = 500


@pytest.fixture(scope="module")
def report():
    return fuzz.fuzz(COUNT, seed=1)


def test_every_damaged_file_is_a_picture_or_a_bitstream_error(report):
    assert report.failures == []
    assert sum(report.outcomes.values()) == COUNT


def test_the_damage_reaches_every_layer(report):
    decoded = sum(n for (_, outcome), n in report.outcomes.items() if outcome == "picture")
    reasons = {outcome for _, outcome in report.outcomes}
    assert decoded > COUNT / 20
    assert len(reasons) > 10
    assert {"the checksum does not match: the file is da"[:40]} <= {r[:40] for r in reasons}


def test_the_table_counts_every_file(report):
    lines = fuzz.table(report).splitlines()
    assert lines[-1].startswith(f"{COUNT} files, 0 failures")


@pytest.mark.slow
def test_sanitizers_find_nothing_in_the_kernel(capfd):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc and its sanitizers")
    status = fuzz.main(["--sanitize", "--count", "200", "--seed", "3"])
    output = capfd.readouterr()
    assert status == 0, output.err
    assert "sanitized kernel: " in output.out
    assert "200 files, 0 failures" in output.out

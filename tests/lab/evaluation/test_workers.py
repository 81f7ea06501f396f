"""Worker processes: fresh, one thread each, results in order."""

from __future__ import annotations

import os

import pytest

from linocut.errors import ConfigError
from linocut.lab.evaluation.workers import map_in_processes, worker_count


def process_and_threads(task: int) -> tuple[int, int, int]:
    import torch

    return task, os.getpid(), torch.get_num_threads()


def test_the_environment_sets_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", "3")
    assert worker_count() == 3
    monkeypatch.delenv("LINOCUT_WORKERS")
    assert worker_count() >= 1


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", value)
    with pytest.raises(ConfigError, match="LINOCUT_WORKERS"):
        worker_count()


def test_results_come_in_order_from_other_processes_of_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", "2")
    results = map_in_processes(process_and_threads, [5, 3, 4], label="test")
    assert [task for task, _, _ in results] == [5, 3, 4]
    assert os.getpid() not in {process for _, process, _ in results}
    assert {threads for _, _, threads in results} == {1}
    assert map_in_processes(process_and_threads, [], label="test") == []

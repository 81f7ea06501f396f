"""Checkpoints are replaced whole and forgotten at the end."""

import contextlib
import errno
import os
import re

import torch

from linocut.lab.training.guards import ResumeState


def test_the_last_state_comes_back(tmp_path):
    resume = ResumeState(tmp_path / "cell" / "hash")
    assert resume.load() is None
    for done in (1, 2):
        resume.save({"done": done, "network": {"w": torch.full((2,), float(done))}})
    state = resume.load()
    assert state["done"] == 2
    assert state["network"]["w"].tolist() == [2.0, 2.0]
    assert [path.name for path in resume.folder.iterdir()] == ["last.pt"]


def test_a_kill_while_writing_leaves_the_old_state(tmp_path, monkeypatch):
    resume = ResumeState(tmp_path)
    resume.save({"done": 1})

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with contextlib.suppress(KeyboardInterrupt):
        resume.save({"done": 2})
    assert resume.load() == {"done": 1}


def test_a_full_disk_is_said_once_and_leaves_the_old_state(tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    resume = ResumeState(tmp_path)
    resume.save({"done": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        resume.save({"done": 2})
        resume.save({"done": 3})
    (line,) = capsys.readouterr().err.split("\n")[1:-1]
    assert f"{tmp_path}/last.pt: cannot be written: No space left on device (disk /" in line
    assert re.search(r"\d+ MB free\); the training goes on$", line)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert resume.load() == {"done": 1}
    resume.save({"done": 4})
    assert resume.load() == {"done": 4}


def test_a_folder_that_cannot_be_made_ends_no_training(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    resume = ResumeState(tmp_path / "file" / "hash")
    resume.save({"done": 1})
    assert f"{tmp_path}/file/hash" in capsys.readouterr().err
    assert resume.load() is None


def test_a_damaged_state_is_said_and_left_aside(tmp_path, capsys):
    resume = ResumeState(tmp_path)
    resume.save({"done": 1})
    resume.file.write_bytes(resume.file.read_bytes()[:100])
    assert resume.load() is None
    assert "last.pt: not a checkpoint that can be read" in capsys.readouterr().err


def test_what_is_forgotten_is_gone_and_may_be_forgotten_twice(tmp_path):
    resume = ResumeState(tmp_path / "cell")
    resume.save({"done": 1})
    resume.clear()
    resume.clear()
    assert resume.load() is None
    assert not resume.folder.exists()

"""Checkpoints are replaced whole and forgotten at the end."""

import contextlib

import torch

from linocut.lab.training.resume import ResumeState


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

    def killed(state, path):
        path.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with contextlib.suppress(KeyboardInterrupt):
        resume.save({"done": 2})
    assert resume.load() == {"done": 1}


def test_what_is_forgotten_is_gone_and_may_be_forgotten_twice(tmp_path):
    resume = ResumeState(tmp_path / "cell")
    resume.save({"done": 1})
    resume.clear()
    resume.clear()
    assert resume.load() is None
    assert not resume.folder.exists()

"""What make says where git is missing, before it builds anything."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Run a target in a folder that holds the Makefile, by somebody whom git does not know."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "EMAIL", "MAKE"))}
    environment = kept | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GIT_CONFIG_COUNT": "1",  # a host name is no identity
        "GIT_CONFIG_KEY_0": "user.useConfigOnly",
        "GIT_CONFIG_VALUE_0": "true",
    }
    command = ["make", "-C", str(folder), target]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_folder_without_git_is_told_so_in_one_line_before_anything_is_built(tmp_path: Path):
    done = make(tmp_path, "repro")
    assert done.returncode != 0
    assert "this folder is not a git checkout" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_experiment_without_an_identity_is_told_so_in_one_line(tmp_path: Path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    done = make(tmp_path, "kodak")
    assert done.returncode != 0
    assert "git does not know you" in done.stderr
    assert not (tmp_path / ".venv").exists()

"""README.md says what is so."""

import re
import subprocess

import pytest

from readme_blocks import BLOCKS, README, ROOT, block, modules, repeated

TEXT = README.read_text(encoding="utf-8")


def test_the_table_of_modules_is_that_of_their_docstrings() -> None:
    assert block(TEXT, "modules") == modules(), "run `make readme`"


@pytest.mark.parametrize("name", BLOCKS)
def test_results_are_those_of_the_report_in_git(name: str) -> None:
    if repeated(name) is None:
        pytest.skip(f"{BLOCKS[name][0].relative_to(ROOT)} has not been made yet")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "reports"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    if changed:
        pytest.skip("reports/ holds an experiment that is not in git")
    assert block(TEXT, name) == repeated(name), "run `make readme`"


def test_the_four_commands_come_first() -> None:
    first = re.search(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    assert first
    commands = [line.partition("#")[0].strip() for line in first[1].splitlines()]
    assert commands == ["make repro", "make test", "dvc repro", "dvc exp run -S loss=l1"]


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith(("http", "reports/", "docs/kodak")):  # made by a run
            assert (ROOT / target).exists(), target


def test_every_make_target_it_names_exists() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in set(re.findall(r"`?make ([a-z]+)`?", TEXT)):
        assert f"make {target} " in listed, target


def test_every_override_it_shows_composes() -> None:
    from linocut.lab.config.compose import compose

    for command in re.findall(r"`(dvc exp run [^`]*)`", TEXT):
        overrides = re.findall(r"-S '?([^ ']+)'?", command)
        if "zzz" not in command and "--queue" not in command:
            compose(overrides)

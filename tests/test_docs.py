"""README.md, CONTRIBUTING.md and the pages under docs/ say what is so."""

import re
import subprocess
from pathlib import Path

import pytest

from readme_blocks import BLOCKS, README, ROOMS, ROOT, block, modules, repeated

PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
MADE_BY_A_RUN = "reports/"


def test_the_table_of_rooms_is_that_of_their_docstrings() -> None:
    assert block(TEXTS[README], "modules") == modules(), "run `make readme`"
    package = ROOT / "src/linocut"
    there = [path for folder in (package, package / "lab") for path in folder.iterdir()]
    rooms = {f"{path.relative_to(package)}/" for path in there if (path / "__init__.py").exists()}
    assert rooms - {"lab/"} == {room for room in ROOMS if room.endswith("/")}


@pytest.mark.parametrize("name", BLOCKS)
def test_results_are_those_of_the_report_in_git(name: str) -> None:
    page, source, _ = BLOCKS[name]
    if repeated(name) is None:
        pytest.skip(f"{source.relative_to(ROOT)} has not been made yet")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "reports"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    if changed:
        pytest.skip("reports/ holds an experiment that is not in git")
    assert block(TEXTS[page], name) == repeated(name), "run `make readme`"


def test_readme_is_read_in_minutes_and_begins_with_use_and_two_commands() -> None:
    text = TEXTS[README]
    assert len(text.encode()) < 10_000
    commands = [
        line.partition("#")[0].strip()
        for shell in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in shell.splitlines()
    ]
    assert commands[0] == "pip install ."
    assert commands[4:8] == ["make repro", "make test", "dvc repro", "dvc exp run -S loss=l1"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXTS[page]):
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve()
        made = str(path.relative_to(ROOT)).startswith(MADE_BY_A_RUN)
        assert made or path.exists(), target


def test_every_page_of_the_docs_is_in_their_index() -> None:
    index = TEXTS[ROOT / "docs/README.md"]
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    if page.name == "log.md":  # history
        return
    for target in set(re.findall(r"`make ([a-z-]+)", TEXTS[page])):
        assert re.search(rf"^{target}: .*## ", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    if page.name == "log.md":  # history
        return
    for path in re.findall(r"`(src/linocut/[\w/.]+)`", TEXTS[page]):
        assert (ROOT / path).exists(), path
    for dotted in re.findall(r"python -m (linocut[\w.]*|benchmarks[\w.]*)", TEXTS[page]):
        parts = ROOT.joinpath("src" if dotted.startswith("linocut") else ".", *dotted.split("."))
        assert parts.with_suffix(".py").exists() or (parts / "__main__.py").exists(), dotted


@pytest.mark.parametrize("page", [README, ROOT / "docs/pipeline.md"], ids=lambda p: p.name)
def test_every_override_that_a_page_shows_composes(page: Path) -> None:
    from linocut.lab.config.params import compose

    for command in re.findall(r"`(dvc exp run [^`]*)`", TEXTS[page]):
        overrides = re.findall(r"-S '?([^ ']+)'?", command)
        if "zzz" not in command and "--queue" not in command:
            compose(overrides)

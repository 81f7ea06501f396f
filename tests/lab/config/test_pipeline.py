"""dvc.yaml, the stage scripts, the parameters and the library agree."""

import pathlib
import re
from typing import Any

import pytest
import yaml

from import_closure import closure, imported
from params_read import numbers_under, read_by

ROOT = pathlib.Path(__file__).resolve().parents[3]
STAGES = sorted((ROOT / "stages").glob("*.py"))
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
NAMES = list(PIPELINE["stages"])


def deps(name: str) -> list[str]:
    return list(PIPELINE["stages"][name]["deps"])


def outs(name: str) -> list[str]:
    stage = PIPELINE["stages"][name]
    listed = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def test_every_stage_has_its_script_and_every_script_its_stage() -> None:
    assert sorted(NAMES) == [path.stem for path in STAGES]


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_depends_on_its_script_and_on_the_modules_it_imports(name: str) -> None:
    modules = [dep for dep in deps(name) if dep.startswith("src/")]
    assert f"stages/{name}.py" in deps(name)
    assert modules == closure(ROOT / "stages" / f"{name}.py"), "run `make deps`"


def test_the_package_itself_which_no_stage_watches_imports_nothing() -> None:
    package = ROOT / "src/linocut"
    assert list(imported(package / "__init__.py")) == []
    for module in (package / "lab").rglob("*.py"):
        text = module.read_text(encoding="utf-8")
        assert not re.search(r"^from linocut import", text, re.MULTILINE), module


@pytest.mark.parametrize("name", NAMES)
def test_a_command_runs_the_script_and_holds_no_fact_about_a_machine(name: str) -> None:
    command = PIPELINE["stages"][name]["cmd"]
    axes = PIPELINE["stages"][name].get("matrix", {})
    options = "".join(f" --{axis} ${{item.{axis}}}" for axis in axes)
    assert command == f"python stages/{name}.py{options}"


@pytest.mark.parametrize("name", NAMES)
def test_dependencies_are_relative_and_made_by_a_stage_or_kept_in_git(name: str) -> None:
    made = {out for stage in NAMES for out in outs(stage)}
    for dep in deps(name):
        if dep.startswith("artifacts/"):
            assert any(dep == out or _inside(dep, out) or _inside(out, dep) for out in made), dep
        else:
            assert (ROOT / dep).exists(), dep


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder + "/")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_lie_under_artifacts_and_those_in_git_under_reports(name: str) -> None:
    stage = PIPELINE["stages"][name]
    for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
        path, settings = next(iter(out.items())) if isinstance(out, dict) else (out, {})
        in_git = settings.get("cache") is False
        if path != "reports/report.html":  # for people, but too large for git
            assert path.startswith("reports/" if in_git else "artifacts/"), path
        assert "persist" not in settings, path


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_has_no_metrics_and_no_plots_of_its_own(name: str) -> None:
    stage = PIPELINE["stages"][name]
    assert "matrix" not in stage or not {"metrics", "plots"} & set(stage)


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_stage_script_is_thin(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "architecture ==" not in text


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_stage_imports_this_checkout_and_no_other_stage(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert 'sys.path.insert(0, str(ROOT / "src"))' in text
    assert text.index("sys.path.insert") < text.index("from linocut")
    assert not re.search(r"(from|import) stages", text)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_depends_on_exactly_the_parameters_that_it_reads(name: str) -> None:
    listed: set[str] = set().union(*map(numbers_under, PIPELINE["stages"][name]["params"]))
    assert listed == read_by(ROOT / "stages" / f"{name}.py")


def test_committed_dvc_settings_name_no_machine() -> None:
    text = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    assert "analytics = false" in text
    assert "url" not in text
    assert not re.search(r"= */", text)

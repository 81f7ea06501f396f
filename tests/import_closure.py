"""Which rooms of this package a stage script reaches through its imports.

    python tests/import_closure.py            print them, stage by stage
    python tests/import_closure.py --write    write them into dvc.yaml (`make deps`)

DVC does not see imports, so dvc.yaml has to list the rooms; a test of the pipeline compares the
list with this closure. Left out: `linocut/__init__.py`, which imports nothing; `errors.py` and
`files.py`, which name mistakes and replace files, so that no number comes from them; and
`lab/tracking`, which watches a stage without touching its outputs (docs/decisions/0003).
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "linocut"
UNWATCHED = {"linocut", "linocut.errors", "linocut.files"}


def closure(script: pathlib.Path) -> list[str]:
    """Paths, relative to the repository, of the rooms that `script` needs; sorted."""
    found: dict[str, pathlib.Path] = {}
    waiting = [script]
    while waiting:
        for name in imported(waiting.pop()):
            path = _module_path(name)
            if path is not None and name not in found and not _watches(name):
                found[name] = path
                waiting.append(path)
    return sorted({_room(path).relative_to(ROOT).as_posix() for path in found.values()})


def _room(module: pathlib.Path) -> pathlib.Path:
    """The folder of a module; a module that lies in no room stands for itself."""
    outside = module.parent in (PACKAGE, PACKAGE / "lab")
    return module if outside else module.parent


def _watches(name: str) -> bool:
    return name in UNWATCHED or f"{name}.".startswith("linocut.lab.tracking.")


def _module_path(name: str) -> pathlib.Path | None:
    path = PACKAGE.parent.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imported(path: pathlib.Path) -> Iterator[str]:
    """Dotted names under `linocut` that a file imports at any depth, but not for types alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise SystemExit(f"{path}: relative import, expected `from linocut...`")
        yield from (name for name in names if name.split(".")[0] == "linocut")


def with_closures(text: str) -> str:
    """dvc.yaml with the rooms of every stage listed after its script."""
    lines = []
    for line in text.splitlines():
        if re.fullmatch(r"\s*- src/linocut/[\w/]+(\.py)?", line):
            continue
        lines.append(line)
        match = re.fullmatch(r"(\s*- )(stages/\w+\.py)", line)
        if match:
            lines.extend(match[1] + room for room in closure(ROOT / match[2]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        pipeline = ROOT / "dvc.yaml"
        pipeline.write_text(with_closures(pipeline.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for stage in sorted((ROOT / "stages").glob("*.py")):
            print(stage.relative_to(ROOT), *closure(stage), sep="\n  ")

"""The parts of README.md that are written by other files.

    python tests/readme_blocks.py --write      rewrite them (`make readme`)

`modules`: the first line of every module's docstring. `results`: the summary of reports/report.md.
`kodak`, `kodak-published`: two blocks of docs/kodak/report.md, which `make kodak` writes.
`side-by-side`: the table of docs/side-by-side.md, which a benchmark writes.
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REPORT = ROOT / "reports/report.md"
KODAK = ROOT / "docs/kodak/report.md"


def modules() -> str:
    """One table row per module of the library."""
    rows = ["| `src/linocut/` | |", "|---|---|"]
    for path in sorted((ROOT / "src/linocut").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append(f"| `{path.name}` | {docstring.partition(chr(10))[0]} |")
    rows.append("| `conf/` | Every parameter, in groups: `arch`, `loss`, `data`, `profile`. |")
    return "\n".join(rows)


def block(text: str, name: str) -> str | None:
    """What stands between `<!-- name -->` and `<!-- /name -->`."""
    match = re.search(rf"<!-- {name}(?:: [^>]*)? -->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)
    return match[1].strip("\n") if match else None


def with_block(text: str, name: str, content: str) -> str:
    """`text` with other content between the marks `name`."""
    return re.sub(
        rf"(<!-- {name}(?:: [^>]*)? -->\n).*?(<!-- /{name} -->)",
        lambda match: f"{match[1]}{content}\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


BLOCKS = {
    "results": (REPORT, "results"),
    "kodak": (KODAK, "results"),
    "kodak-published": (KODAK, "published"),
    "side-by-side": (ROOT / "docs/side-by-side.md", "table"),
}
"""Blocks of README by name: the file and its block that they repeat."""


def repeated(name: str) -> str | None:
    """What README should hold in one of `BLOCKS`; None where its source does not exist yet."""
    path, of_path = BLOCKS[name]
    return block(path.read_text(encoding="utf-8"), of_path) if path.exists() else None


def written() -> str:
    """README.md as it should be."""
    text = with_block(README.read_text(encoding="utf-8"), "modules", modules())
    for name in BLOCKS:
        found = repeated(name)
        text = text if found is None else with_block(text, name, found)
    return text


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    README.write_text(written(), encoding="utf-8")

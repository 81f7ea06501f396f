"""The parts of README.md and docs/results.md that are written by other files.

    python tests/readme_blocks.py --write      rewrite them (`make readme`)

`modules`: the first line of every room's docstring. `results`: the summary of reports/report.md.
`kodak-published`: what docs/reports/kodak/report.md says of curves that others published; `kodak`,
`cid22`, `clic2025`, and each of these for another architecture: the summaries in docs/reports/,
which `make kodak` and `make pictures` write.
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
MEASURED = ROOT / "docs/reports"
RESULTS = ROOT / "docs/results.md"
ROOMS = (
    "cli/", "pillow.py", "codec/", "entropy/", "format/", "pictures/", "models/", "errors.py",
    "lab/config/", "lab/data/", "lab/networks/", "lab/training/", "lab/fitting/",
    "lab/evaluation/", "lab/studies/", "lab/report/", "lab/tracking/", "lab/cluster/",
)  # fmt: skip
"""The parts of src/linocut/, as README lists them."""


def modules() -> str:
    """One table row per room of the library, the codec's first, in the order of the data."""
    rows = ["| room | |", "|---|---|"]
    for name in ROOMS:
        path = ROOT / "src/linocut" / name
        module = path if path.is_file() else path / "__init__.py"
        docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
        rows.append(f"| `{name}` | {docstring.partition(chr(10))[0]} |")
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
    "kodak-published": (RESULTS, MEASURED / "kodak/report.md", "published"),
    "results": (RESULTS, REPORT, "results"),
    "side-by-side": (RESULTS, ROOT / "docs/side-by-side.md", "table"),
} | {
    name: (README if name == "kodak" else RESULTS, MEASURED / name / "report.md", "results")
    for corpus in ("kodak", "cid22", "clic2025")
    for name in (corpus, f"{corpus}-generative", f"{corpus}-cae2018")
}
"""Blocks by name: the page that repeats one, the file that has it, and its name there."""


def repeated(name: str) -> str | None:
    """What a page should hold in one of `BLOCKS`; None where its source does not exist yet."""
    _, path, of_path = BLOCKS[name]
    return block(path.read_text(encoding="utf-8"), of_path) if path.exists() else None


def written() -> dict[pathlib.Path, str]:
    """README.md and docs/results.md as they should be."""
    texts = {path: path.read_text(encoding="utf-8") for path in (README, RESULTS)}
    texts[README] = with_block(texts[README], "modules", modules())
    for name, (page, _, _) in BLOCKS.items():
        found = repeated(name)
        if found is not None:
            texts[page] = with_block(texts[page], name, found)
    return texts


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")

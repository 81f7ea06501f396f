"""The little Markdown that the report uses, as HTML: headings, paragraphs, lists, tables, bold."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence


def sections(markdown: str) -> dict[str, str]:
    """HTML by second-level heading; pictures and comments are left out, as are empty sections.

    What comes before the first such heading is under "".
    """
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in markdown.splitlines():
        if line.startswith("## "):
            name = line[3:].strip()
            found[name] = []
        elif not line.startswith(("# ", "![", "<!--")):
            found[name].append(line)
    converted = {name: _blocks(lines) for name, lines in found.items()}
    return {name: text for name, text in converted.items() if text}


def _blocks(lines: Sequence[str]) -> str:
    """Blocks are what blank lines part; the first characters of a block say what it is."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return "\n".join(_block(block) for block in blocks if block)


def _block(lines: Sequence[str]) -> str:
    if lines[0].startswith("### "):
        rest = f"\n{_block(lines[1:])}" if lines[1:] else ""
        return f"<h3>{_inline(lines[0][4:])}</h3>{rest}"
    if lines[0].startswith("|"):
        return _table(lines)
    text = " ".join(line.strip() for line in lines)
    if lines[0].startswith("- "):
        joined = "\n".join(lines)
        items = [" ".join(item.split()) for item in re.split(r"(?:^|\n)- ", joined) if item]
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(text)}</p>"


def _table(lines: Sequence[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:]
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)

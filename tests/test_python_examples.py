"""The examples in docs/python.md give what stands below them."""

import doctest
from pathlib import Path

from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.image import write_png

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "photo.png", dead_leaves(48, 72, 3))
    failed, tried = doctest.testfile(str(EXAMPLES), module_relative=False)
    assert (failed, tried > 15) == (0, True)

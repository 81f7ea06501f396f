"""`dvc plots` draws without a network, with the Vega that `make setup` writes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from dvc_render import VegaRenderer, render_html
from vl_convert import javascript_bundle

from browser import browser

DVC = Path(__file__).resolve().parents[1] / ".dvc"


def test_plots_of_two_revisions_are_drawn_from_files_alone(tmp_path: Path) -> None:
    shutil.copytree(DVC / "plots", tmp_path / ".dvc/plots")
    (tmp_path / ".dvc/tmp").mkdir()
    bundle = javascript_bundle()
    (tmp_path / ".dvc/tmp/vega.js").write_text(bundle, encoding="utf-8")
    points = [
        {"curve": curve, "kind": "cell", "bpp": bpp, "psnr_db": 30 + bpp, "rev": revision}
        for curve in ("cae-l2", "cae-l1")
        for revision in ("HEAD", "workspace")
        for bpp in (0.1, 0.5, 1.0)
    ]
    plot = VegaRenderer(
        points, "PSNR", x="bpp", y="psnr_db", template="rd", template_dir=tmp_path / ".dvc/plots"
    )
    page = render_html([plot], tmp_path / "dvc_plots/index.html", DVC / "page.html")
    with browser() as window:
        window.open(Path(page))
        drawn = "return document.querySelectorAll('svg.marks, canvas.marks').length"
        deadline = time.monotonic() + 60
        while not window.run(drawn) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert window.run(drawn) == 1
        fetched = window.run("return performance.getEntriesByType('resource').map(one => one.name)")
        assert [name for name in fetched if not name.startswith("file:")] == []
        assert not [line for line in window.console() if "ERR_" in line]

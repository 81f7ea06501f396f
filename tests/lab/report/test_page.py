"""The page works in a real browser, offline, on a wide screen and on a phone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, browser
from experiment import CELLS, write_damaged, write_experiment
from linocut.lab.config.params import CompareConfig
from linocut.lab.evaluation.rows import CLASSICAL, CONTROLS, LEARNED
from linocut.lab.report.build import compare
from linocut.lab.report.page import sections

CONFIG = CompareConfig(bootstrap_draws=20, shown_pictures=1, shown_bpp=0.25)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_experiment(folder / "artifacts")
    write_damaged(folder / "artifacts" / "studies/robustness")
    reports = folder / "reports"
    reports.mkdir()
    params = folder / "params.yaml"
    params.write_text("seed: 0 # <script>\n")
    artifacts = folder / "artifacts"
    compare(CELLS, artifacts=artifacts, reports=reports, config=CONFIG, seed=0, params=params)
    return reports / "report.html"


@pytest.fixture(scope="module")
def window(page: Path) -> Iterator[Browser]:
    with browser() as window:
        window.open(page)
        yield window


def test_the_page_needs_nothing_from_elsewhere_and_is_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 8_000_000
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", markup)
    assert "seed: 0 # &lt;script&gt;" in markup
    assert text.count("<script>") == 2


def test_every_table_of_the_report_is_on_the_page(page: Path) -> None:
    markdown = (page.parent / "report.md").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    for row in re.findall(r"^\| (?!---)(.*) \|$", markdown.partition("## BD-rates")[2], re.M):
        for cell in row.split(" | "):
            assert f">{cell.strip()}</t" in text, cell


def test_the_browser_has_nothing_to_complain_about(window: Browser) -> None:
    assert window.console() == []
    assert window.run("return performance.getEntriesByType('resource').length") == 0


def test_all_figures_are_drawn(window: Browser) -> None:
    drawn = window.run(
        "return [...document.querySelectorAll('.figure')]"
        ".map(one => one.querySelectorAll('.main-svg').length)"
    )
    assert len(drawn) == 6
    assert all(drawn)
    curves = "return document.querySelectorAll('#rd .scatterlayer .trace').length"
    assert window.run(curves) == len(CELLS) + len(CONTROLS) + 2


def test_every_entry_of_every_control_keeps_axes_and_data(window: Browser) -> None:
    """The first entry is chosen last: nothing stays behind of the others."""
    wrong = window.run(
        """
        const wrong = [], steps = [];
        for (const choice of document.querySelectorAll(".views select")) {
          const figure = choice.parentElement.nextElementSibling;
          const labels = [...choice.options].map((one) => one.value);
          for (const label of [...labels, labels[0]]) steps.push([choice, figure, label]);
        }
        return (async () => {
          for (const [choice, figure, label] of steps) {
            choice.value = label;
            choice.dispatchEvent(new Event("change"));
            await new Promise((resolve) => setTimeout(resolve, 30));
            const wanted = VIEWS[figure.id][label];
            const name = `${figure.id}, ${label}`;
            for (const key of Object.keys(wanted.layout).filter((one) => /^[xy]axis/.test(one))) {
              const shown = figure._fullLayout[key], given = wanted.layout[key];
              const title = given.title?.text ?? shown.title.text;
              const range = given.range ?? shown.range.filter(Number.isFinite);
              const found = [shown.type, shown.title.text, ...shown.range];
              const right = [given.type ?? "linear", title, ...range];
              if (String(found) !== String(right)) wrong.push(`${name}, ${key}: ${found}`);
            }
            for (const key of ["x", "y", "z", "text"])
              if (JSON.stringify(figure.data.map((one) => one[key])) !==
                  JSON.stringify(wanted.data.map((one) => one[key]))) wrong.push(`${name}: ${key}`);
          }
          return [wrong, steps.length];
        })();
        """
    )
    assert wrong == [[], (8 + 1) + (8 + 1) + (len(CELLS) + 1)]


def test_bars_stand_at_rates_whatever_cell_is_chosen(window: Browser) -> None:
    """The labels are numbers, which Plotly takes for a scale as soon as it may."""
    window.run(
        "const choice = document.querySelector('#split-section select');"
        "choice.value = arguments[0]; choice.dispatchEvent(new Event('change'))",
        CELLS[1],
    )
    labels = (
        "return [...document.querySelectorAll('#split .xtick text')].map(one => one.textContent)"
    )
    assert window.run(labels) == ["0.20", "0.60"]


def test_the_bits_of_each_cell_add_up_to_all_of_them(window: Browser) -> None:
    bars = window.run(
        "const figure = document.getElementById('split');"
        "return figure.data.map(one => [one.yaxis, one.y])"
    )
    for axis in ("y", "y2"):
        shares = [y for side, y in bars if side == axis]
        assert [sum(point) for point in zip(*shares, strict=True)] == pytest.approx([100, 100])
    label = "return [...document.querySelectorAll('#split-section option')].map(one => one.value)"
    assert window.run(label) == list(CELLS)


def test_the_slider_uncovers_the_other_version(window: Browser) -> None:
    viewer = "const viewer = document.querySelector('.viewer');"
    clip = f"{viewer} return viewer.querySelector('img.over').style.clipPath"
    assert "50%" in window.run(clip)
    window.run(
        f"{viewer} const range = viewer.querySelector('input[type=range]');"
        "range.value = 20; range.dispatchEvent(new Event('input'))"
    )
    assert "80%" in window.run(clip)
    window.run(
        f"{viewer} const pair = viewer.querySelector('.pair'); pair.scrollIntoView();"
        "const box = pair.getBoundingClientRect();"
        "pair.dispatchEvent(new PointerEvent('pointerdown', {clientX: box.left + 0.9 * box.width}))"
    )
    assert re.search(r"\b10(\.\d+)?%", window.run(clip))


def test_versions_can_be_chosen_and_loaded(window: Browser) -> None:
    viewer = "const viewer = document.querySelector('.viewer');"
    choices = f"{viewer} return [...viewer.querySelector('select').options].map(one => one.value)"
    assert window.run(choices)[:2] == ["original", "cae-l2"]
    window.run(
        f"{viewer} const select = viewer.querySelectorAll('select')[1];"
        "select.value = 'original'; select.dispatchEvent(new Event('change'))"
    )
    note = f"{viewer} return viewer.querySelectorAll('.notes span')[1].textContent"
    assert window.run(note) == "original: 176 x 176"
    size = f"{viewer} const image = viewer.querySelector('img'); return image.decode().then(() => "
    assert window.run(f"{size} [image.naturalWidth, image.naturalHeight])") == [176, 176]


def test_a_picture_starts_at_its_own_pixels_and_there_is_a_way_back(window: Browser) -> None:
    state = (
        "const viewer = document.querySelector('.viewer');"
        "return [viewer.querySelector('.pair').getBoundingClientRect().width * devicePixelRatio,"
        "viewer.querySelector('button[aria-pressed=true]').textContent]"
    )
    press = "document.querySelectorAll('.viewer button')[arguments[0]].click()"
    assert window.run(state) == [pytest.approx(176, abs=1), "1x"]
    window.run(press, 2)
    assert window.run(state) == [pytest.approx(4 * 176, abs=1), "4x"]
    window.run(press, 0)
    assert window.run(state) == [pytest.approx(176, abs=1), "1x"]


def test_damaged_pictures_of_all_arms_are_on_the_page(window: Browser) -> None:
    shown = window.run(
        "return Promise.all([...document.querySelectorAll('#damaged figure')].map(one => "
        "one.querySelector('img').decode().then(() => [one.querySelector('img').naturalWidth, "
        "one.textContent.trim()])))"
    )
    assert [width for width, _ in shown] == [192] * (len(LEARNED) + len(CLASSICAL))
    assert shown[2][1] == ".lino, resilient (cae-l2)"
    assert shown[-1][1] == "JPEG 2000"


def test_a_phone_does_not_scroll_sideways_and_fingers_find_every_control(window: Browser) -> None:
    window.resize(500, 900)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    deadline = time.monotonic() + 10.0  # figures follow the window a moment later
    while window.run(wide) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert window.run(wide) <= 0
    small = (
        "return [...document.querySelectorAll('select, button, summary, nav a, input')].filter("
        "one => one.getBoundingClientRect().height < 44).length"
    )
    assert window.run(small) == 0
    window.resize(1200, 900)


def test_the_markdown_of_the_report_becomes_html() -> None:
    table = "| a | b |\n| --- | ---: |\n| 1 < 2 | `c` |\n"
    listed = "- one\n  more\n"
    text = f"# A\nlead **x**\n\n<!-- no -->\n\n## B\n### C\n\n{table}\n{listed}\n## D\n![x](y)\n"
    found = sections(text)
    assert found[""] == "<p>lead <strong>x</strong></p>\n"
    assert found["B"].startswith('<h3>C</h3>\n<div class="scroll"><table>')
    assert "<td>1 &lt; 2</td>" in found["B"]
    assert found["B"].endswith("<ul>\n<li>one\nmore</li>\n</ul>\n")
    assert "D" not in found

"""The command line keeps its contract: names, exit codes, streams, one line per error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linocut.cli.main import main
from linocut.format.bitstream import unpack
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.models import folders
from linocut.pictures.image import read_picture, write_png
from linocut.pictures.quality import psnr_db

SOURCE = Path(__file__).parents[2] / "src"
GOLDEN = Path(__file__).parents[1] / "golden/wavelet"
LEAVES = dead_leaves(40, 56, seed=8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with one picture."""
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "a.png", LEAVES)
    return tmp_path


@pytest.fixture
def model(codec_folder) -> list[str]:
    return ["--model", str(codec_folder), "--threads", "1"]


def run(*arguments: str) -> int:
    return main(arguments)


def in_process(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "linocut", *arguments]
    environment = {"PYTHONPATH": str(SOURCE), "PATH": "", "HOME": "/"}
    return subprocess.run(
        command, input=data, capture_output=True, env=environment, timeout=120, check=False
    )


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_there_and_back(here: Path, model: list[str], capsys) -> None:
    assert run("compress", "a.png", "--quality", "70", *model) == 0
    assert "a.png -> a.lino: " in one_line(capsys)
    assert run("decompress", "a.lino", "-o", "b.png", *model) == 0
    assert psnr_db(LEAVES, read_picture(here / "b.png").rgb) > 25
    assert sorted(path.name for path in here.iterdir()) == ["a.lino", "a.png", "b.png"]


@pytest.mark.usefixtures("here")
def test_compare_agrees_between_a_file_and_its_decoded_picture(model: list[str], capsys) -> None:
    run("compress", "a.png", *model)
    run("decompress", "a.lino", "-o", "b.png", *model)
    capsys.readouterr()
    assert run("compare", "a.png", "b.png", "--json") == 0
    decoded = json.loads(capsys.readouterr().out)
    assert run("compare", "a.png", "a.lino", "--json", *model) == 0
    file = json.loads(capsys.readouterr().out)
    assert decoded["psnr_db"] == file["psnr_db"]
    assert file["bpp"] == pytest.approx(
        8 * Path("a.lino").stat().st_size / LEAVES[..., 0].size, 1e-3
    )
    assert file["ms_ssim"] is None  # smaller than its window


@pytest.mark.usefixtures("here")
def test_info_explains_a_file_as_text_and_as_json(model: list[str], capsys) -> None:
    run("compress", "a.png", "--quality", "33", *model)
    capsys.readouterr()
    assert run("info", "a.lino") == 0
    assert "width            56" in capsys.readouterr().out
    assert run("info", "a.lino", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["height"], facts["bytes"]) == (40, Path("a.lino").stat().st_size)


@pytest.mark.usefixtures("here")
def test_info_knows_what_decoding_with_a_shipped_model_costs(capsys) -> None:
    run("compress", "a.png", "-o", "shipped.lino")
    capsys.readouterr()
    assert run("info", "shipped.lino", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"] == folders.RECOMMENDED
    assert 5 < facts["decoder_kmac_per_px"] <= 20


@pytest.mark.parametrize(
    ("option", "value"), [("--bpp", "3"), ("--max-bytes", "700"), ("--psnr", "28")]
)
@pytest.mark.usefixtures("here")
def test_targets(option: str, value: str, model: list[str], capsys) -> None:
    assert run("compress", "a.png", option, value, *model) == 0
    capsys.readouterr()
    run("compare", "a.png", "a.lino", "--json", *model)
    facts = json.loads(capsys.readouterr().out)
    if option == "--psnr":
        assert 28 <= facts["psnr_db"] < 29
    else:
        most = {"--bpp": 3 * LEAVES[..., 0].size / 8, "--max-bytes": 700}[option]
        assert 0.9 * most < facts["bytes"] <= most


@pytest.mark.usefixtures("here")
def test_existing_files_are_kept_without_force(model: list[str], capsys) -> None:
    Path("a.lino").write_bytes(b"precious")
    assert run("compress", "a.png", *model) == 1
    assert (
        one_line(capsys)
        == "linocut: a.lino: exists already (-f overwrites, --skip-existing goes on)"
    )
    assert Path("a.lino").read_bytes() == b"precious"
    assert run("compress", "a.png", "-f", *model) == 0
    assert Path("a.lino").read_bytes() != b"precious"


def test_a_folder_goes_on_after_a_failure_and_sums_up(here: Path, model: list[str], capsys) -> None:
    (here / "deep").mkdir()
    write_png(here / "deep" / "b.png", LEAVES[:20])
    (here / "broken.png").write_bytes(b"no picture")
    assert run("compress", ".", "-o", "out", *model) == 1
    errors = capsys.readouterr().err
    assert "linocut: broken.png: not a picture that Pillow can read" in errors
    assert "2 of 3 files, 1 failed: " in errors
    assert (here / "out" / "deep" / "b.lino").exists()
    assert run("decompress", "out", "-o", "back", *model) == 0
    assert read_picture(here / "back" / "deep" / "b.png").rgb.shape == (20, 56, 3)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "absent.png"], "absent.png: no such file"),
        (["decompress", "a.png", "-o", "z.png"], "a.png: not a .lino file"),
        (["decompress", "a.png", "-o", "b.jpg"], "b.jpg: cannot write '.jpg', only .png"),
        (["info", "a.png"], "a.png: not a .lino file"),
        (["compare", "a.png", "absent.png"], "absent.png: no such file"),
        (["compress", "a.png", "--model", "nowhere"], "a.png: model 'nowhere' is neither"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(arguments: list[str], message: str, capsys) -> None:
    assert run(*arguments) == 1
    assert one_line(capsys).startswith(f"linocut: {message}")


@pytest.mark.usefixtures("here")
def test_a_damaged_file_is_named_with_the_reason(model: list[str], capsys) -> None:
    run("compress", "a.png", *model)
    data = Path("a.lino").read_bytes()
    Path("cut.lino").write_bytes(data[:-3])
    capsys.readouterr()
    assert run("decompress", "cut.lino", *model) == 1
    assert one_line(capsys).startswith("linocut: cut.lino: the file is truncated")
    assert not Path("cut.png").exists()


@pytest.mark.usefixtures("here")
def test_pictures_above_the_limit_are_refused(model: list[str], capsys) -> None:
    run("compress", "a.png", *model)
    capsys.readouterr()
    assert run("decompress", "a.lino", "-o", "b.png", "--max-pixels", "2239", *model) == 1
    assert "has 2240 pixels, the limit is 2239" in one_line(capsys)
    assert run("decompress", "a.lino", "-o", "b.png", "--max-pixels", "2240", *model) == 0


@pytest.mark.usefixtures("here")
def test_debug_shows_the_traceback() -> None:
    with pytest.raises(Exception, match="no such file"):
        run("compress", "absent.png", "--debug")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["compress"],
        ["compress", "a.png", "--quality", "0"],
        ["compress", "a.png", "--quality", "101"],
        ["compress", "a.png", "--bpp", "nan"],
        ["compress", "a.png", "--max-bytes", "1.5"],
        ["compress", "a.png", "--effort", "4"],
        ["compress", "a.png", "--bpp", "1", "--quality", "50"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert "usage: linocut" in capsys.readouterr().err


def test_links_and_pipes_stay_what_they_are(here: Path, model: list[str], capsys) -> None:
    (here / "real").mkdir()
    (here / "b.lino").symlink_to(here / "real/b.lino")
    assert run("compress", "a.png", "-o", "b.lino", *model) == 0
    assert (here / "b.lino").is_symlink()
    data = (here / "real/b.lino").read_bytes()
    os.mkfifo(here / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((here / "pipe").read_bytes()))
    reader.start()
    assert run("compress", "a.png", "-o", "pipe", *model) == 0
    reader.join(timeout=60)
    assert received == [data]
    assert (here / "pipe").is_fifo()


def test_a_command_that_is_killed_leaves_whole_files_only(here: Path) -> None:
    """SIGKILL as soon as the first file is there; then the rest is done with the same command."""
    (here / "pictures").mkdir()
    for number in range(24):
        write_png(here / f"pictures/{number:02}.png", LEAVES)
    command = ["compress", "pictures", "-o", "out", "--model", str(GOLDEN), "--threads", "1", "-f"]
    environment = {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-m", "linocut", *command], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not list(here.glob("out/*.lino")):
            time.sleep(0.002)
        process.kill()
    written = {path.name: path.read_bytes() for path in here.glob("out/*")}
    assert 0 < len(written) <= 24
    for name, data in written.items():
        assert name.endswith(".part") or unpack(data).width == 56
    assert sum(name.endswith(".part") for name in written) <= 1
    assert run(*command) == 0
    assert len(list(here.glob("out/*.lino"))) == 24


def test_streams_carry_pictures_through_two_processes(model: list[str]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(LEAVES).save(buffer, "PNG")
    packed = in_process("compress", "-", *model, data=buffer.getvalue())
    assert (packed.returncode, packed.stdout[:4]) == (0, b"LINO"), packed.stderr
    unpacked = in_process("decompress", "-", *model, data=packed.stdout)
    assert unpacked.returncode == 0, unpacked.stderr
    assert psnr_db(LEAVES, np.asarray(Image.open(io.BytesIO(unpacked.stdout)))) > 25


def test_what_is_converted_or_lost_is_said(here: Path, model: list[str], capsys) -> None:
    Image.fromarray(LEAVES).convert("CMYK").save(here / "c.tif")
    run("compress", "c.tif", *model)
    assert "c.tif: CMYK converted to RGB" in capsys.readouterr().err
    rgba = np.dstack([LEAVES, LEAVES[..., 0]])
    Image.fromarray(rgba).save(here / "d.png")
    run("compress", "d.png", *model)
    run("decompress", "d.lino", "-o", "d.ppm", *model)
    assert "d.lino: PPM cannot hold the alpha channel: dropped" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_animations_are_refused_by_name(model: list[str], capsys) -> None:
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in (0, 200)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    assert run("compress", "moving.gif", *model) == 1
    assert one_line(capsys).startswith("linocut: moving.gif: an animation of 2 pictures")


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, linocut.cli.main; sys.exit(len({'numpy', 'PIL', 'torch'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(SOURCE)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=30)
    assert loaded.returncode == 0
    begin = time.perf_counter()
    assert in_process("--help").returncode == 0
    assert time.perf_counter() - begin < 1.5  # 0.1 s where the machine is idle


def test_info_imports_no_torch(here: Path, model: list[str]) -> None:
    run("compress", "a.png", *model)
    code = (
        "import sys; from linocut.cli.main import main; main(['info', 'a.lino'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", code]
    assert (
        subprocess.run(command, env=environment, cwd=here, check=False, timeout=60).returncode == 0
    )


def test_resilient_files_say_so_and_survive(here: Path, model: list[str], capsys) -> None:
    assert run("compress", "a.png", "--resilient", *model) == 0
    assert run("info", "a.lino", "--json") == 0
    assert json.loads(capsys.readouterr().out)["resilient"] is True
    whole = (here / "a.lino").read_bytes()
    assert run("decompress", "a.lino", "-o", "whole.png", *model) == 0
    assert "concealed" not in capsys.readouterr().err

    wrong = bytearray(whole)
    wrong[0] ^= 0x10  # even the mark
    for place in range(50, len(wrong), 90):
        wrong[place] ^= 0x5A
    (here / "a.lino").write_bytes(wrong)
    assert run("decompress", "a.lino", "-o", "repaired.png", *model) == 0
    assert "concealed" not in capsys.readouterr().err
    assert (here / "repaired.png").read_bytes() == (here / "whole.png").read_bytes()

    (here / "a.lino").write_bytes(whole[: len(whole) * 3 // 4])
    assert run("decompress", "a.lino", "-o", "cut.png", *model) == 0
    assert "a.lino: damaged: " in capsys.readouterr().err
    assert read_picture("cut.png").rgb.shape == LEAVES.shape


def test_plain_files_say_that_they_are(here: Path, model: list[str], capsys) -> None:
    assert run("compress", "a.png", *model) == 0
    capsys.readouterr()
    assert run("info", "a.lino") == 0
    assert ["resilient", "no"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert run("info", "a.lino", "--json") == 0
    assert json.loads(capsys.readouterr().out)["resilient"] is False


def in_shell(command: str, here: Path) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which `linocut` is the command."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "PYTHON": sys.executable}
    line = f'linocut() {{ "$PYTHON" -m linocut "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line], cwd=here, env=environment, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("linocut compress - <&-", "<stdin>: standard input is closed"),
        ("linocut compress a.png -o - >&-", "standard output is closed"),
        ("linocut models >&-", "standard output is closed"),
        ("linocut models > /dev/full", "OSError: [Errno 28] No space left on device"),
        (
            "set -o pipefail; linocut models --json | true",
            "standard output was closed before everything was written",
        ),
    ],
)
def test_closed_streams_are_one_line_and_exit_code_1(
    command: str, message: str, here: Path
) -> None:
    done = in_shell(command, here)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"linocut: {message}")


@pytest.mark.skipif(sys.platform == "win32", reason="limits files by the shell")
@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("compress a.png", "a.lino"),
        ("compress a.png -o out", "out/a.lino"),
        ("decompress wavelet-odd.lino", "wavelet-odd.png"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_the_file_that_was_there(
    command: str, target: str, here: Path, codec_folder: Path
) -> None:
    (here / "out").mkdir()
    (here / "wavelet-odd.lino").write_bytes((GOLDEN.parent / "wavelet-odd.lino").read_bytes())
    (here / target).write_bytes(b"from before")
    before = sorted(here.rglob("*"))
    model = GOLDEN if command.startswith("decompress") else codec_folder
    full = f"ulimit -f 0; linocut {command} -f --model {model} --threads 1"
    done = in_shell(full, here)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert target in line
    assert "cannot be written: File too large" in line
    assert (here / target).read_bytes() == b"from before"
    assert sorted(here.rglob("*")) == before


def test_neither_home_nor_temporary_folder_nor_locale_is_needed(
    here: Path, codec_folder: Path
) -> None:
    (here / "a.png").rename(here / "grün.png")
    bare = {
        "HOME": "/nonexistent", "TMPDIR": "/nonexistent", "XDG_CACHE_HOME": "/proc/nothing",
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(SOURCE),
    }  # fmt: skip
    for command in (["compress", "grün.png"], ["decompress", "grün.lino", "-o", "b.png"]):
        done = subprocess.run(
            [sys.executable, "-m", "linocut", *command, "--model", codec_folder, "--threads", "1"],
            env=bare, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"Warning" not in done.stderr
    assert psnr_db(LEAVES, read_picture(here / "b.png").rgb) > 20


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_files_need_no_streams(closed: str, here: Path, codec_folder: Path) -> None:
    done = in_shell(f"linocut compress a.png --model {codec_folder} --threads 1 {closed}", here)
    assert done.returncode == 0, done.stderr
    assert unpack((here / "a.lino").read_bytes()).width == 56
    assert in_shell(f"linocut --help {closed}", here).returncode == 0


def test_compare_says_that_alpha_differs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = np.dstack([LEAVES, np.full(LEAVES.shape[:2], 128, np.uint8)])
    Image.fromarray(half).save(here / "half.png")
    assert run("compare", "a.png", "half.png", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["alpha_difference"] == 127
    assert shown.err.startswith("half.png: alpha differs from the original by up to 127 of 255")
    assert run("compare", "half.png", "half.png", "--json") == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["alpha_difference"], shown.err) == (0, "")


def test_compare_does_not_look_at_what_is_invisible(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.dstack([LEAVES, np.full(LEAVES.shape[:2], 255, np.uint8)])
    picture[:, :20, 3] = 0
    Image.fromarray(picture).save(here / "one.png")
    picture[:, :20, :3] = 0
    Image.fromarray(picture).save(here / "other.png")
    assert run("compare", "one.png", "other.png", "--json") == 0
    assert json.loads(capsys.readouterr().out)["psnr_db"] is None  # equal: infinite


@pytest.mark.usefixtures("here")
def test_the_encoder_takes_pictures_up_to_a_limit_of_choice(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compress", "a.png", "--max-pixels", "2239", *model) == 1
    assert "the limit is 2239" in one_line(capsys)
    assert run("compress", "a.png", "--max-pixels", "2240", *model) == 0


@pytest.mark.parametrize("kind", ["jfif", "ico", "qoi"])
def test_folders_are_searched_for_rarer_pictures_too(
    kind: str, here: Path, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "more").mkdir()
    (here / "more/notes.txt").write_text("no picture")
    if kind == "qoi":
        (here / "more/b.qoi").write_bytes(qoi_of(LEAVES[:32, :32]))
    else:
        Image.fromarray(LEAVES[:32, :32]).save(here / f"more/b.{kind}")
    assert run("compress", "more", "-o", "out", *model) == 0
    assert "more: left alone 1 other file (1 .txt)" in capsys.readouterr().err
    assert unpack((here / "out/b.lino").read_bytes()).width == 32


def qoi_of(picture: np.ndarray) -> bytes:
    """A QOI file that names every pixel in full."""
    height, width = picture.shape[:2]
    pixels = b"".join(b"\xfe" + bytes(pixel) for row in picture for pixel in row)
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"qoif" + size + b"\3\0" + pixels + bytes(7) + b"\1"


def test_a_folder_gives_the_same_bytes_with_any_number_of_processes(
    here: Path, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "more").mkdir()
    for number in range(4):
        write_png(here / f"more/{number}.png", dead_leaves(72, 200, seed=number))
    (here / "more/2.png").write_bytes(b"no picture")
    for jobs in ("1", "3"):
        assert run("compress", "more", "-o", f"out{jobs}", "--jobs", jobs, *model) == 1
        assert run("decompress", f"out{jobs}", "-o", f"back{jobs}", "--jobs", jobs, *model) == 0
        lines = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
        assert lines == [
            f"more/0.png -> out{jobs}/0.lino", f"more/1.png -> out{jobs}/1.lino", "linocut",
            f"more/3.png -> out{jobs}/3.lino", "3 of 4 files, 1 failed",
            *(f"out{jobs}/{n}.lino -> back{jobs}/{n}.png" for n in "013"), "3 of 3 files",
        ]  # fmt: skip
    for name in ("0", "1", "3"):
        for folder, suffix in (("out", ".lino"), ("back", ".png")):
            one, many = (here / f"{folder}{jobs}/{name}{suffix}" for jobs in "13")
            assert one.read_bytes() == many.read_bytes()


def test_a_screenshot_is_exact_says_so_and_is_read_without_its_model(
    here: Path, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    page = np.full((80, 120, 3), 250, np.uint8)
    page[10:70:4, 10:100] = (20, 20, 60)
    write_png(here / "page.png", page)
    assert run("compress", "page.png", *model) == 0
    assert run("info", "page.lino", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["lossless"], facts["model_id"]) == (True, None)
    assert run("decompress", "page.lino", "-o", "again.png") == 0
    assert np.array_equal(read_picture(here / "again.png").rgb, page)

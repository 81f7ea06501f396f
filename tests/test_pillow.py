"""The Pillow plugin opens and saves .lino files like any other format."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import linocut.pillow
import raw_files
from linocut.errors import ConfigError
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.models import folders
from linocut.pictures.quality import psnr_db

LEAVES = dead_leaves(48, 64, seed=5)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module", autouse=True)
def installed(codec_folder, tmp_path_factory):
    """The small codec as the recommended model."""
    release = tmp_path_factory.mktemp("release")
    shutil.copytree(codec_folder, release / folders.RECOMMENDED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "RELEASE", release)
        yield
    linocut.pillow._codec.cache_clear()


def saved(image: Image.Image, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "LINOCUT", **options)
    file.seek(0)
    return file


def test_save_and_open_by_file_name(tmp_path: Path) -> None:
    Image.fromarray(LEAVES).save(tmp_path / "a.lino", quality=70)
    with Image.open(tmp_path / "a.lino") as image:
        assert (image.format, image.mode, image.size) == ("LINOCUT", "RGB", (64, 48))
        assert psnr_db(LEAVES, np.asarray(image)) > 25


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_these_modes_come_back_as_they_went(mode: str) -> None:
    image = Image.fromarray(LEAVES).convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize((64, 48)))
    again = Image.open(saved(image))
    assert again.mode == mode
    if "A" in mode:
        assert np.array_equal(np.asarray(again)[..., -1], np.asarray(image)[..., -1])


@pytest.mark.parametrize("mode", ["1", "P"])
def test_these_modes_come_back_as_grey_or_colour(mode: str) -> None:
    image = Image.fromarray(LEAVES).convert(mode)
    with pytest.warns(UserWarning, match="palette expanded") if mode == "P" else nullcontext():
        again = Image.open(saved(image))
    assert again.mode == {"1": "L", "P": "RGB"}[mode]


def test_conversions_are_said_as_warnings() -> None:
    with pytest.warns(UserWarning, match="CMYK converted to RGB"):
        saved(Image.fromarray(LEAVES).convert("CMYK"))


def test_profile_is_kept_and_exif_where_given() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    image = Image.fromarray(LEAVES)
    image.info["icc_profile"] = SRGB
    again = Image.open(saved(image, exif=exif))
    assert again.info["icc_profile"] == SRGB
    assert again.getexif()[0x010E] == "a description"
    assert "exif" not in Image.open(saved(image)).info


def test_opening_runs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(Image.fromarray(LEAVES))
    monkeypatch.setattr(linocut.pillow, "decompress_picture", _must_not_run)
    assert Image.open(file).size == (64, 48)


def test_targets_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="quality and bpp given, expected one of them"):
        saved(Image.fromarray(LEAVES), quality=50, bpp=1.0)
    assert len(saved(Image.fromarray(LEAVES), max_bytes=900).getvalue()) <= 900


def test_damaged_files_are_refused_with_the_reason() -> None:
    data = bytearray(saved(Image.fromarray(LEAVES)).getvalue())
    data[-1] ^= 1
    with pytest.raises(OSError, match="checksum does not match"):
        Image.open(io.BytesIO(bytes(data)))
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(bytes(data[:-5])))


def test_a_file_of_an_unknown_model_opens_but_does_not_decode() -> None:
    file = saved(Image.fromarray(LEAVES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "RELEASE", Path("nowhere"))
        image = Image.open(file)
        with pytest.raises(OSError, match="which is not installed"):
            image.load()


def _must_not_run(*arguments: object) -> None:
    raise AssertionError("the network ran")


def test_damage_of_a_resilient_file_is_a_warning() -> None:
    data = saved(Image.fromarray(LEAVES), resilient=True).getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.open(io.BytesIO(b"LIOO" + data[4:])).load()
    image = Image.open(io.BytesIO(data[:-200]))
    with pytest.warns(UserWarning, match="damaged: "):
        image.load()


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pickled_and_copied_pictures_are_whole(mode: str, loaded: bool, protocol: int) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    file = saved(Image.fromarray(LEAVES).convert(mode), exif=exif)
    image = Image.open(file)
    if loaded:
        image.load()
    pixels = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    for again in (
        pickle.loads(pickle.dumps(image, protocol)), copy.copy(image), copy.deepcopy(image),
        image.copy(),
    ):  # fmt: skip
        again.load()
        assert np.array_equal(np.asarray(again), pixels)
        assert np.array_equal(np.asarray(again.resize((8, 8))), np.asarray(image.resize((8, 8))))
        assert (again.mode, again.size) == (mode, (64, 48))
        assert again.getexif()[0x010E] == "a description"


def test_pickled_before_loading_or_after_they_are_equal_as_other_formats_are() -> None:
    file = saved(Image.fromarray(LEAVES))
    image = Image.open(file)
    assert pickle.loads(pickle.dumps(image)) == image


def test_a_pool_of_fresh_processes_gets_pictures(tmp_path: Path) -> None:
    """What a DataLoader does: objects out and back, pixels asked for on the other side."""
    image = Image.open(saved(Image.fromarray(LEAVES)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (thumbnail,) = pool.map(half, [image])
    assert np.array_equal(np.asarray(thumbnail), np.asarray(half(image)))


def half(image: Image.Image) -> Image.Image:
    return image.reduce(2)


def test_loading_twice_and_from_every_kind_of_file_is_the_same(tmp_path: Path) -> None:
    data = saved(Image.fromarray(LEAVES)).getvalue()
    (tmp_path / "a.lino").write_bytes(data)
    behind = io.BytesIO(data)
    behind.seek(9)

    class NoSeek(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self.rest.read(size)

    with (tmp_path / "a.lino").open("rb") as file:
        sources = [tmp_path / "a.lino", str(tmp_path / "a.lino"), file, behind, NoSeek()]
        pictures = []
        for source in sources:
            image = Image.open(source)
            assert image.load() is not None
            assert image.load() is not None
            pictures.append(np.asarray(image))
        assert not file.closed
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


def test_closing_and_verifying_behave_as_with_other_formats(tmp_path: Path) -> None:
    Image.fromarray(LEAVES).save(tmp_path / "a.lino")
    with Image.open(tmp_path / "a.lino") as image:
        image.load()
    assert image.getpixel((0, 0)) is not None  # pixels stay
    image = Image.open(tmp_path / "a.lino")
    image.verify()
    with Image.open(tmp_path / "a.lino") as image:
        image.thumbnail((16, 16))
        image.seek(0)
        assert image.tell() == 0
        with pytest.raises(EOFError):
            image.seek(1)


def test_a_screenshot_comes_back_exactly_and_needs_no_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = Image.new("RGBA", (90, 70), (240, 240, 255, 255))
    page.paste((20, 30, 40, 200), (10, 10, 60, 30))
    file = saved(page)
    monkeypatch.setattr(folders, "RELEASE", tmp_path)
    again = Image.open(file)
    assert again.mode == "RGBA"
    assert np.array_equal(np.asarray(again), np.asarray(page))
    assert len(file.getvalue()) < 200


def test_a_transparent_level_of_sixteen_bits_opened_by_pillow_is_kept() -> None:
    samples = np.full((20, 30, 1), 40_000)
    samples[3:9] -= 1
    content = raw_files.png(samples, 16, 0, [(b"tRNS", (40_000).to_bytes(2))])
    with pytest.warns(UserWarning, match="16 bits a sample reduced to 8"):
        file = saved(Image.open(io.BytesIO(content)))
    again = np.asarray(Image.open(file))
    assert np.array_equal(again[..., 1] == 0, samples[..., 0] == 40_000)


def test_a_transparent_colour_of_sixteen_bits_is_ignored_by_the_plugin_and_said() -> None:
    content = raw_files.png(np.full((20, 30, 3), 40_000), 16, 2, [(b"tRNS", b"\x9c\x40" * 3)])
    with pytest.warns(UserWarning, match="transparency key of 16 bits ignored"):
        file = saved(Image.open(io.BytesIO(content)))
    assert Image.open(file).mode == "RGB"

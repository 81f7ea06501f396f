"""A folder compressed by two actors of a cluster holds what the codec makes of each picture."""

import pytest

from linocut.codec.codec import Codec
from linocut.codec.picture_files import Target, compress_picture
from linocut.lab.cluster.corpus import main
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.image import read_picture, write_png


@pytest.fixture
def pictures(tmp_path):
    """Six pictures in a tree, and one that is none."""
    folder = tmp_path / "pictures"
    for seed in range(6):
        path = folder / ("deep" if seed % 2 else "") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, dead_leaves(40, 48, seed))
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray reads its own attributes
def test_two_actors_compress_a_corpus_once(pictures, codec_folder, tmp_path, capfd):
    pytest.importorskip("ray", reason="pip install 'linocut[cluster]'")
    out = tmp_path / "out"
    command = [str(pictures), str(out), "--address", "local", "--actors", "2"]
    command += ["--model", str(codec_folder), "--quality", "70"]
    assert main(command) == 1
    printed = capfd.readouterr()
    assert "6 compressed, 0 there already, 1 failed: " in printed.out
    assert "broken.jpg: " in printed.err
    codec = Codec.load(codec_folder, threads=1)
    for path in pictures.rglob("*.png"):
        data, _ = compress_picture(codec, read_picture(path), Target("quality", 70.0))
        name = path.relative_to(pictures).with_suffix(".lino")
        assert (out / name).read_bytes() == data
    (pictures / "broken.jpg").unlink()
    (out / "0.lino").unlink()
    assert main(command) == 0
    assert "1 compressed, 5 there already, 0 failed" in capfd.readouterr().out


def test_what_cannot_be_told_apart_or_is_not_there_is_one_line(pictures, tmp_path, capsys):
    (pictures / "0.jpg").write_bytes(b"")
    assert main([str(pictures), str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("several pictures would become 0.lino")
    assert main([str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("none holds no pictures")

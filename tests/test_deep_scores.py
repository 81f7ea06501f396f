"""LPIPS and FID: what surrounds the pretrained networks, which tests do not fetch."""

import pathlib
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from linocut.codec.codec import Codec
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.rows import CodedRow, write_rows
from linocut.pictures.image import write_png

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from benchmarks import deep_scores


def distance(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Stands in for LPIPS: mean absolute difference."""
    assert float(one.min()) >= -1.0
    assert float(two.max()) <= 1.0
    return (one - two).abs().mean()


def features(patches: torch.Tensor) -> np.ndarray:
    """Stands in for Inception: mean colours."""
    assert patches.shape[1:] == (3, 32, 32)
    return patches.mean((2, 3)).double().numpy()


def frechet(mean1, covariance1, mean2, covariance2) -> float:
    root = scipy.linalg.sqrtm(covariance1 @ covariance2).real
    return float(np.square(mean1 - mean2).sum() + np.trace(covariance1 + covariance2 - 2 * root))


@pytest.fixture
def root(codec_folder: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout with two files of two pictures each, and a twin."""
    coded, tests = tmp_path / "artifacts/coded/cae-l2", tmp_path / "artifacts/prepared/test"
    for folder in (coded / "files", tests, tmp_path / "artifacts/studies/twin/cae-l2"):
        folder.mkdir(parents=True)
    (coded / "codec").symlink_to(codec_folder)
    (tmp_path / "artifacts/studies/twin/cae-l2/plain").symlink_to(codec_folder)
    codec, rows = Codec.load(codec_folder), []
    for number, name in enumerate("ab"):
        picture = dead_leaves(64, 96, number)
        write_png(tests / f"{name}.png", picture)
        for point, step in enumerate((90.0, 10.0)):
            data = codec.compress(picture, step=step, effort=0)
            (coded / "files" / f"{name}-{point}.lino").write_bytes(data)
            rows.append(CodedRow(name, point, step, len(data), 1.0, 0.0))
    write_rows(coded / "coded.csv", CodedRow, rows)
    return tmp_path


def test_every_decoder_has_a_row_for_every_rate(root: pathlib.Path) -> None:
    lines = deep_scores.scores(root, "cae-l2", 32, distance, features, frechet)
    assert "FID over 30 patches of 32 px: fewer than 2048" in lines[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]
    assert [row[1] for row in cells] == ["own", "own", "plain", "plain"]
    coarse, fine, *twin = cells
    assert float(coarse[0]) < float(fine[0])
    assert float(coarse[2].split()[0]) > float(fine[2].split()[0]) > 0
    assert [row[2:] for row in twin] == [coarse[2:], fine[2:]]  # the same weights


def test_what_is_missing_is_said_in_one_line(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert deep_scores.main(["--root", str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs the packages lpips, pytorch-fid and torchvision" in line
    monkeypatch.setattr(deep_scores, "load_networks", lambda: (distance, features, frechet))
    assert deep_scores.main(["--root", str(root), "--patch-px", "65"]) == 1
    assert "a side below 65 px" in capsys.readouterr().err
    assert deep_scores.main(["--root", str(root), "--cell", "none"]) == 1
    assert deep_scores.main(["--root", str(root), "--patch-px", "32"]) == 0
    assert "| LPIPS | FID |" in capsys.readouterr().out

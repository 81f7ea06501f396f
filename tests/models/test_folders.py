"""Models are found by name, folder or the id in a file, and the id follows their meaning."""

import json
import os
import shutil

import pytest

from linocut.errors import CheckpointError
from linocut.lab.networks.store import save_model
from linocut.models import folders as models
from tiny import untrained


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A release of two models."""
    for number, name in enumerate((models.RECOMMENDED, "other")):
        save_model(tmp_path / name, untrained("cae", number), {})
    monkeypatch.setattr(models, "RELEASE", tmp_path)
    return tmp_path


def test_shipped_models_are_listed_and_default_is_the_recommended_one(shipped):
    assert models.available() == {
        name: shipped / name for name in sorted((models.RECOMMENDED, "other"))
    }
    assert models.folder_of("default") == shipped / models.RECOMMENDED
    assert models.folder_of("other") == shipped / "other"


def test_a_folder_is_a_name_too(shipped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(shipped / "other", folder / "model")
    assert models.folder_of(folder / "model") == folder / "model"
    assert models.folder_of(str(folder / "model")) == folder / "model"


def test_other_names_are_refused_with_the_known_ones(shipped):
    with pytest.raises(CheckpointError, match=r"'zzz' is neither a folder .* default, .*other"):
        models.folder_of("zzz")


def test_without_a_release_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "RELEASE", tmp_path)
    with pytest.raises(CheckpointError, match="none are installed"):
        models.folder_of("default")


def test_ids_find_their_folder(shipped):
    for folder in models.available().values():
        assert len(models.model_id(folder)) == 8
        assert models.by_id(models.model_id(folder)) == folder
    with pytest.raises(CheckpointError, match=r"model 0101010101010101, which is not installed"):
        models.by_id(b"\1" * 8)


def change(folder, **facts):
    description = folder / "model.json"
    stamp = description.stat().st_mtime_ns
    description.write_text(json.dumps(json.loads(description.read_text()) | facts))
    os.utime(description, ns=(stamp + 1000, stamp + 1000))


def test_the_id_follows_weights_and_meaning_but_not_the_story(shipped):
    folder = shipped / "other"
    before = models.model_id(folder)
    change(folder, about={"trained": "elsewhere"})
    assert models.model_id(folder) == before
    change(folder, config={"levels": 4})
    assert models.model_id(folder) != before
    assert models.model_id(shipped / models.RECOMMENDED) != before


def test_a_missing_or_broken_model_has_no_id(shipped):
    with pytest.raises(CheckpointError, match="holds no model"):
        models.model_id(shipped / "nowhere")
    (shipped / "other" / "model.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not a model description"):
        models.model_id(shipped / "other")

"""params.yaml is what conf/ composes to, and overrides are checked before anything runs."""

import pathlib
import re

import pytest
import yaml

from linocut.errors import ConfigError
from linocut.lab.config import compose

OPTIONS = {
    axis: sorted(path.stem for path in (compose.CONF / axis).iterdir())
    for axis in ("arch", "loss", "task", "profile", "data")
}
ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_params_yaml_is_what_conf_composes_to() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == compose.compose()


@pytest.mark.parametrize("profile", OPTIONS["profile"])
@pytest.mark.parametrize("data", OPTIONS["data"])
def test_every_profile_composes_with_every_data_source(profile: str, data: str) -> None:
    compose.compose([f"profile={profile}", f"data={data}"])


@pytest.mark.parametrize(
    ("axis", "name"),
    [
        (axis, n)
        for axis in ("arch", "loss", "task")
        for n in OPTIONS[axis]
        if n not in ("all", "compress")  # several of them, none of them
    ],
)
def test_every_option_alone_makes_a_grid_of_its_own_name(axis: str, name: str) -> None:
    composed = yaml.safe_load(compose.compose([f"{axis}={name}"]))
    assert composed["grid"][axis] == list(composed[axis]) == [name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    default = {"arch": ["cae", "generative"], "loss": ["l2", "l1", "ssim", "ms_ssim", "mix"]}
    others = {other: names for other, names in default.items() if other != axis}
    assert {other: composed["grid"][other] for other in others} == others


def test_bit_errors_are_studied_of_l2_where_it_is_in_the_grid() -> None:
    for loss, studied in (("l2", ["l2"]), ("l1", [])):
        assert yaml.safe_load(compose.compose([f"loss={loss}"]))["grid"]["bit_errors"] == studied


def test_by_default_nothing_is_restored() -> None:
    composed = yaml.safe_load(compose.compose())
    assert composed["task"] == {}
    assert composed["grid"]["task"] == []


def test_a_list_of_losses_is_a_grid_of_them() -> None:
    composed = yaml.safe_load(compose.compose(["loss=[l1,ssim]"]))
    assert composed["grid"]["loss"] == ["l1", "ssim"]


def test_a_misspelt_loss_lists_the_losses() -> None:
    with pytest.raises(ConfigError, match=r"Available options in 'loss'.* l1 l2 .*ms_ssim .*ssim"):
        compose.compose(["loss=zzz"])


@pytest.mark.parametrize("override", ["los=l1", "loss.mix.alhpa=1", "train.megapixel=1"])
def test_a_misspelt_key_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"Could not override"):
        compose.compose([override])


def test_a_small_float_stays_a_float_in_yaml() -> None:
    composed = yaml.safe_load(compose.compose(["train.learning_rate=1e-5"]))
    assert composed["train"]["learning_rate"] == 1e-5


def test_an_environment_variable_is_left_to_the_stage() -> None:
    composed = yaml.safe_load(compose.compose(["data=folder", "data.folder=$PICTURES/all"]))
    assert composed["data"]["folder"] == "$PICTURES/all"


def test_check_tells_a_hand_edit_and_write_mends_it(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(compose.compose() + "extra: 1\n", encoding="utf-8")
    assert compose.main(["--check", "--file", str(file)]) == 1
    assert "make params" in capsys.readouterr().err
    assert compose.main(["--write", "--file", str(file)]) == 0
    assert compose.main(["--check", "--file", str(file)]) == 0


def test_a_wrong_override_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert compose.main(["--check", "loss=zzz"]) == 1
    assert capsys.readouterr().err.count("\n") == 1

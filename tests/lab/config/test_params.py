"""Parameters are typed or refused with key, value and what is allowed; conf/ makes params.yaml."""

from __future__ import annotations

import copy
import pathlib
import re
from typing import Any

import pytest
import yaml

from linocut.errors import ConfigError
from linocut.lab.config import params
from linocut.lab.config.parse import parse, plain

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARAMS = ROOT / "params.yaml"


@pytest.fixture
def raw() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load(PARAMS.read_text(encoding="utf-8")))


def refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(params.Params, raw)


def test_the_committed_parameters_load_and_convert_back() -> None:
    loaded = params.load_params(PARAMS)
    assert plain(loaded) == yaml.safe_load(PARAMS.read_text(encoding="utf-8"))


def test_cells_are_every_architecture_with_every_loss() -> None:
    grid = params.GridConfig(
        arch=("a", "b"), loss=("l1", "l2"), task=(), bit_errors=(), twin_arch=("a",),
        twin_loss=("l1", "l2"),
    )  # fmt: skip
    assert grid.cells == ("a-l1", "a-l2", "b-l1", "b-l2")
    assert grid.twins == ("a-l1", "a-l2")


def test_an_unknown_key_is_named_with_the_allowed_ones(raw: dict[str, Any]) -> None:
    raw["train"]["learning_rat"] = 0.1
    refused(raw, r"'learning_rat'; .*params:TrainConfig takes .*, learning_")


def test_a_missing_key_is_named(raw: dict[str, Any]) -> None:
    del raw["train"]["learning_rate"]
    refused(raw, r"train lacks learning_rate")


def test_a_float_that_yaml_reads_as_text_says_how_to_write_it(raw: dict[str, Any]) -> None:
    raw["train"]["learning_rate"] = yaml.safe_load("1e-4")
    refused(raw, r"train\.learning_rate is '1e-4', expected a number: .* 1\.0e-4")


@pytest.mark.parametrize("value", ["4", 4.0, True, None, [4]])
def test_a_count_is_a_whole_number_and_nothing_else(raw: dict[str, Any], value: object) -> None:
    raw["train"]["batch_size"] = value
    refused(raw, r"train\.batch_size is .*, expected a whole number")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True])
def test_a_number_is_finite(raw: dict[str, Any], value: object) -> None:
    raw["train"]["learning_rate"] = value
    refused(raw, r"train\.learning_rate is .*, expected a finite number")


def test_a_whole_number_will_do_for_a_float(raw: dict[str, Any]) -> None:
    raw["train"]["gradient_clip"] = 2
    clip = parse(params.Params, raw).train.gradient_clip
    assert isinstance(clip, float)


def test_a_number_out_of_range_is_named_with_the_range(raw: dict[str, Any]) -> None:
    raw["loss"]["mix"]["alpha"] = 1.5
    refused(raw, r"loss\.mix\.alpha is 1\.5, expected at most 1")


def test_a_choice_lists_its_options(raw: dict[str, Any]) -> None:
    raw["pca"]["mode"] = "gobal"
    refused(raw, r"pca\.mode is 'gobal', expected 'none', 'global' or 'per_image'")


def test_an_item_of_a_list_is_named_by_its_place(raw: dict[str, Any]) -> None:
    raw["code"]["rates_bpp"] = [0.1, "x"]
    refused(raw, r"code\.rates_bpp\[1\] is 'x'")


@pytest.mark.parametrize("rates", [[], [0.5, 0.5], [0.5, 0.1]])
def test_rates_rise(raw: dict[str, Any], rates: list[float]) -> None:
    raw["code"]["rates_bpp"] = rates
    refused(raw, r"code\.rates_bpp is .*, expected numbers that rise")


def test_an_unknown_task_lists_the_known_ones(raw: dict[str, Any]) -> None:
    raw["task"] = {"deblur": {}}
    refused(raw, r"task has the unknown key 'deblur'; .*params:TASKS has .*'denoise', 'dejpeg'")


@pytest.mark.parametrize(
    ("section", "value"),
    [("train", 3), ("loss", None), ("arch", ["cae"]), ("robustness", {"losses": ["l2"]})],
)
def test_a_mapping_is_a_mapping(raw: dict[str, Any], section: str, value: object) -> None:
    raw[section] = raw[section] | value if isinstance(value, dict) else value
    refused(raw, rf"{section}[.\w]* is .*, expected a mapping")


@pytest.mark.parametrize("axis", ["arch", "loss"])
def test_the_grid_names_what_is_configured(raw: dict[str, Any], axis: str) -> None:
    raw["grid"][axis] = []
    refused(raw, rf"grid\.{axis} is \[\], expected the keys of {axis}")


@pytest.mark.parametrize("studied", [[], ["l1"]])
def test_bit_errors_are_studied_of_the_losses_that_ask_for_it(
    raw: dict[str, Any], studied: list[str]
) -> None:
    raw["grid"]["bit_errors"] = studied
    refused(raw, r"grid\.bit_errors is .*, expected the keys of robustness\.losses, \['l2'\]")


def test_a_loss_outside_the_grid_is_not_studied(raw: dict[str, Any]) -> None:
    raw["grid"]["loss"] = ["l1"]
    raw["loss"] = {"l1": raw["loss"]["l1"]}
    refused(raw, r"all of them in grid\.loss, \['l1'\]")


def test_shares_leave_something_for_training(raw: dict[str, Any]) -> None:
    raw["data"] |= {"validation_share": 0.5, "test_share": 0.5}
    refused(raw, "nothing is left for training")


@pytest.mark.parametrize("text", ["", "[1]", "seed: [", "\x00"])
def test_a_file_that_holds_no_parameters_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params\.yaml is"):
        params.load_params(path)


def test_a_missing_file_says_how_to_make_it(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="make params"):
        params.load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("study", ["task", "twin"])
def test_ncode_is_in_no_study_that_trains_against_a_rate(raw: dict[str, Any], study: str) -> None:
    numbers = {
        "target": "linocut.lab.networks.networks:Ncode",
        "latent": 100, "bits": [2, 4], "channels": 8, "blocks": 8, "learning_rate": 1.0e-3,
        "discriminator_learning_rate": 2.0e-4, "feature_weight": 1.0, "encoder_share": 0.25,
    }  # fmt: skip
    raw["arch"] = {"ncode": numbers}
    raw["grid"] |= {"arch": ["ncode"], "twin_arch": []}
    raw["twin"]["arch"] = {}
    parse(params.Params, raw)
    if study == "task":
        raw["task"] = {"denoise": {"sigma": 25.0}}
        raw["grid"]["task"] = ["denoise"]
    else:
        raw["twin"]["arch"] = {"ncode": {}}
    refused(raw, "arch ncode can be in neither study")


# --- params.yaml is what conf/ composes to --------------------------------------------------------


OPTIONS = {
    axis: sorted(path.stem for path in (params.CONF / axis).iterdir())
    for axis in ("arch", "loss", "task", "profile", "data")
}


def test_params_yaml_is_what_conf_composes_to() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == params.compose()


@pytest.mark.parametrize("profile", OPTIONS["profile"])
@pytest.mark.parametrize("data", OPTIONS["data"])
def test_every_profile_composes_with_every_data_source(profile: str, data: str) -> None:
    params.compose([f"profile={profile}", f"data={data}"])


@pytest.mark.parametrize(
    ("axis", "name"),
    [
        (axis, n)
        for axis in ("arch", "loss", "task")
        for n in OPTIONS[axis]
        if n not in ("all", "shipped", "compress")  # several of them, none of them
    ],
)
def test_every_option_alone_makes_a_grid_of_its_own_name(axis: str, name: str) -> None:
    composed = yaml.safe_load(params.compose([f"{axis}={name}"]))
    assert composed["grid"][axis] == list(composed[axis]) == [name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    default = {"arch": ["cae", "generative"], "loss": ["l2", "l1", "ssim", "ms_ssim", "mix"]}
    others = {other: names for other, names in default.items() if other != axis}
    assert {other: composed["grid"][other] for other in others} == others


def test_bit_errors_are_studied_of_l2_where_it_is_in_the_grid() -> None:
    for loss, studied in (("l2", ["l2"]), ("l1", [])):
        assert yaml.safe_load(params.compose([f"loss={loss}"]))["grid"]["bit_errors"] == studied


def test_by_default_nothing_is_restored() -> None:
    composed = yaml.safe_load(params.compose())
    assert composed["task"] == {}
    assert composed["grid"]["task"] == []


def test_a_list_of_losses_is_a_grid_of_them() -> None:
    composed = yaml.safe_load(params.compose(["loss=[l1,ssim]"]))
    assert composed["grid"]["loss"] == ["l1", "ssim"]


def test_a_misspelt_loss_lists_the_losses() -> None:
    with pytest.raises(ConfigError, match=r"Available options in 'loss'.* l1 l2 .*ms_ssim .*ssim"):
        params.compose(["loss=zzz"])


@pytest.mark.parametrize("override", ["los=l1", "loss.mix.alhpa=1", "train.megapixel=1"])
def test_a_misspelt_key_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"Could not override"):
        params.compose([override])


def test_a_small_float_stays_a_float_in_yaml() -> None:
    composed = yaml.safe_load(params.compose(["train.learning_rate=1e-5"]))
    assert composed["train"]["learning_rate"] == 1e-5


def test_an_environment_variable_is_left_to_the_stage() -> None:
    composed = yaml.safe_load(params.compose(["data=folder", "data.folder=$PICTURES/all"]))
    assert composed["data"]["folder"] == "$PICTURES/all"


def test_check_tells_a_hand_edit_and_write_mends_it(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(params.compose() + "extra: 1\n", encoding="utf-8")
    assert params.main(["--check", "--file", str(file)]) == 1
    assert "make params" in capsys.readouterr().err
    assert params.main(["--write", "--file", str(file)]) == 0
    assert params.main(["--check", "--file", str(file)]) == 0


def test_a_wrong_override_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert params.main(["--check", "loss=zzz"]) == 1
    assert capsys.readouterr().err.count("\n") == 1

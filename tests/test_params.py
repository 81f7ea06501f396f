"""params.yaml is what conf/ composes to, and overrides are checked before anything runs."""

import pathlib

import pytest
import yaml

from linocut.errors import ConfigError
from linocut.lab.config import compose
from linocut.lab.config.arch_config import ARCH_CONFIGS
from linocut.lab.config.params import LOSS_CONFIGS, TASK_CONFIGS

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_params_yaml_is_what_conf_composes_to() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == compose.compose()


@pytest.mark.parametrize("profile", sorted(p.stem for p in (compose.CONF / "profile").iterdir()))
@pytest.mark.parametrize("data", sorted(p.stem for p in (compose.CONF / "data").iterdir()))
def test_every_profile_composes_with_every_data_source(profile: str, data: str) -> None:
    compose.compose([f"profile={profile}", f"data={data}"])


@pytest.mark.parametrize("loss", LOSS_CONFIGS)
def test_one_loss_shrinks_the_grid_to_it(loss: str) -> None:
    composed = yaml.safe_load(compose.compose([f"loss={loss}"]))
    assert composed["grid"]["loss"] == [loss]
    assert composed["grid"]["bit_errors"] == (["l2"] if loss == "l2" else [])
    assert composed["grid"]["arch"] == ["cae", "generative"]


@pytest.mark.parametrize("arch", ARCH_CONFIGS)
def test_one_architecture_shrinks_the_grid_to_it(arch: str) -> None:
    assert yaml.safe_load(compose.compose([f"arch={arch}"]))["grid"]["arch"] == [arch]


def test_by_default_nothing_is_restored() -> None:
    composed = yaml.safe_load(compose.compose())
    assert composed["task"] == {}
    assert composed["grid"]["task"] == []


@pytest.mark.parametrize("task", TASK_CONFIGS)
def test_a_task_adds_restorations_to_the_grid(task: str) -> None:
    composed = yaml.safe_load(compose.compose([f"task={task}"]))
    assert list(composed["task"]) == composed["grid"]["task"] == [task]
    assert composed["grid"]["loss"] == ["l2", "l1", "ssim", "ms_ssim", "mix"]


def test_a_list_of_losses_is_a_grid_of_them() -> None:
    composed = yaml.safe_load(compose.compose(["loss=[l1,ssim]"]))
    assert composed["grid"]["loss"] == ["l1", "ssim"]


def test_a_misspelt_loss_lists_the_losses() -> None:
    with pytest.raises(ConfigError, match=r"Available options in 'loss'.* l1 l2 mix ms_ssim ssim"):
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

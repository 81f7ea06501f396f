"""Compose src/linocut/lab/conf/ into params.yaml, byte for byte as `dvc exp run` does.

    python -m linocut.lab.config.compose --check   say whether params.yaml is what conf/ makes
    python -m linocut.lab.config.compose --write   write it

`dvc exp run` composes by itself and overwrites params.yaml; `dvc repro` reads the file as it is.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from linocut.errors import ConfigError
from linocut.lab.config.params import Params
from linocut.lab.config.parse import parse

CONF = pathlib.Path(__file__).resolve().parents[1] / "conf"


def compose(overrides: Sequence[str] = ()) -> str:
    """Text of params.yaml for the defaults of conf/ changed by `overrides` (as after `-S`).

    Raises:
        ConfigError: an override names no known group, option or key, or a value is not allowed.
    """
    import hydra
    import hydra.errors
    import omegaconf

    try:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            config = hydra.compose("config", overrides=list(overrides))
        omegaconf.OmegaConf.resolve(config)
    except (hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    parse(Params, omegaconf.OmegaConf.to_container(config))
    return omegaconf.OmegaConf.to_yaml(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write params.yaml; 0 when it is what conf/ composes to, else 1."""
    parser = argparse.ArgumentParser(description="Compose conf/ into params.yaml.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail when params.yaml differs")
    action.add_argument("--write", action="store_true", help="write params.yaml")
    parser.add_argument("--file", type=pathlib.Path, default=pathlib.Path("params.yaml"))
    parser.add_argument("overrides", nargs="*", help="as after -S: loss=l1 profile=smoke")
    chosen = parser.parse_args(arguments)
    try:
        text = compose(chosen.overrides)
    except ConfigError as error:
        print(f"linocut.lab.config.compose: {error}", file=sys.stderr)
        return 1
    if chosen.write:
        chosen.file.write_text(text, encoding="utf-8")
    elif not chosen.file.exists() or chosen.file.read_text(encoding="utf-8") != text:
        print(
            f"linocut.lab.config.compose: {chosen.file} is not what conf/ composes to: "
            "run `make params`, or change conf/ to keep a hand edit",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The best codec in MLflow's model registry, where others find it by the alias `champion`.

codec/ of the best cell --> registered model `linocut` --> models:/linocut@champion
"""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import linocut
from linocut.lab.tracking.store import collected

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = "linocut"
ALIAS = "champion"
REQUIREMENTS = ("constriction", "numpy", "onnxruntime", "pillow", "safetensors", "threadpoolctl")
"""What a decoder imports; the package itself is stored with the model."""
DESCRIPTION = """\
The codec of the working tree that needs the fewest bits at equal PSNR, networks and tables in it.

`mlflow.pyfunc.load_model("models:/linocut@champion").predict(picture, params={"step": 24.0})`: a
picture (h, w, 3) uint8 sRGB in; the decoded `picture`, its `bpp` and the `file` out. `step` is the
quantisation step in grey levels, 1 to 1024: larger is smaller and worse.
"""


def crown(
    client: MlflowClient,
    run_id: str,
    codec: Mapping[str, pathlib.Path],
    step: float,
    tags: Mapping[str, str],
) -> str:
    """Register a codec unless it is there already, point the alias at it, and return its version.

    Args:
        client: of the store.
        run_id: the run that the codec came from.
        codec: files of the codec's folder by their names.
        step: the default quantisation step.
        tags: of the version; `linocut.result` tells whether it is there.
    """
    versions = client.search_model_versions(f"name='{MODEL}'")
    known = [v for v in versions if v.tags.get("linocut.result") == tags["linocut.result"]]
    if known:
        version = str(known[0].version)
    else:
        info = client.get_run(run_id).info
        version = _register(run_id, codec, step)
        client.set_terminated(run_id, info.status, info.end_time)  # it has just ended again
        for name, text in tags.items():
            client.set_model_version_tag(MODEL, version, name, text)
        client.update_registered_model(MODEL, DESCRIPTION)
        client.update_model_version(MODEL, version, _described(tags))
    if str(client.get_registered_model(MODEL).aliases.get(ALIAS)) != version:
        client.set_registered_model_alias(MODEL, ALIAS, version)
    return version


def _described(tags: Mapping[str, str]) -> str:
    """A version in a line of plain text."""
    bits, out = tags.get("BD-rate percent"), tags.get("dvc.out")
    against = f", {bits} % of bits against JPEG 2000" if bits else ""
    return f"{tags['linocut.cell']}{against}" + (f"; {out} in DVC's cache" if out else "")


def _register(run_id: str, codec: Mapping[str, pathlib.Path], step: float) -> str:
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, 3))]),
        params=ParamSchema([ParamSpec("step", DataType.double, step)]),
    )
    package = pathlib.Path(str(linocut.__file__)).parent
    silence = contextlib.redirect_stderr(io.StringIO())  # MLflow reports each of its steps
    with collected(codec) as folder, silence, mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="codec",
            python_model=str(package / "lab/tracking/model.py"),
            code_paths=[str(package)],
            artifacts={"codec": str(folder)},
            signature=signature,
            pip_requirements=list(REQUIREMENTS),
            registered_model_name=MODEL,
        )
    return str(logged.registered_model_version)

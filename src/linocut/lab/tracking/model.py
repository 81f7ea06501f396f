"""The codec as an MLflow model: a picture in, the decoded picture and its rate out.

    model = mlflow.pyfunc.load_model("models:/linocut@champion")
    result = model.predict(picture, params={"step": 24.0})    # picture (h, w, 3) uint8, sRGB
    result["picture"], result["bpp"], result["file"]

MLflow keeps this file, the package and the codec's folder, and runs the file when it loads the
model: nothing is pickled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from linocut.codec.codec import Codec


class CodecService:
    """Compresses a picture into the bytes of a .lino file, and decodes those."""

    def load_context(self, context: Any) -> None:
        """Load the codec from the folder that was logged with the model."""
        self._codec = Codec.load(context.artifacts["codec"])

    # No annotations here: MLflow would make a schema of them, and they have none for a picture.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Send one picture through the codec.

        Args:
            context: what `load_context` had; unused here.
            model_input: picture (h, w, 3), sRGB, uint8.
            params: `step`, the quantisation step in grey levels, 1 to 1024: larger is smaller and
                worse.

        Returns:
            A dictionary: `picture` (h, w, 3) uint8, `bpp` of the file, header included, and the
            `file` itself.
        """
        picture = np.asarray(model_input, dtype=np.uint8)
        data = self._codec.compress(picture, step=float((params or {})["step"]))
        height, width, _ = picture.shape
        return {
            "picture": self._codec.decompress(data),
            "bpp": 8 * len(data) / (height * width),
            "file": data,
        }


class CodecModel(CodecService, PythonModel):
    """The service as MLflow takes it; it warns of a `predict` without annotations in this class."""


set_model(CodecModel())

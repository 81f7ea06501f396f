"""Pictures <-> .lino files.

    picture --pad, cut--> windows --analysis--> latents --rotate--> r --quantise--> symbols
    symbols --code--> file --decode--> symbols
    symbols --dequantise--> r_hat --rotate back--> latents --synthesis--> windows --cut--> picture

>>> from linocut.codec.codec import Codec
>>> codec = Codec.load("default")
>>> data = codec.compress(picture, step=24.0)        # picture: uint8 (h, w, 3)
>>> decoded = codec.decompress(data)
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linocut.codec import analysis, rotation
from linocut.codec.analysis import Analysed
from linocut.codec.correction import numbers_of, scale_of
from linocut.codec.numpy_threads import numpy_on_one_thread
from linocut.codec.rotation import Rotation, rotation_from
from linocut.codec.segments import Decoded, damage_of, decode_segments, encode_segments, layout_of
from linocut.codec.symbol_choice import Choice
from linocut.codec.tiling import Tile, tiles, windows
from linocut.codec.windows import Picture, device_of, synthesise_window
from linocut.entropy.choice import DEFAULT_EFFORT
from linocut.entropy.coder import Coder, EntropyCoder
from linocut.entropy.fixed_codes import FixedCodes
from linocut.entropy.planes import Symbols, step_index
from linocut.entropy.tables import EntropyTables
from linocut.errors import BitstreamError, CheckpointError, DataError
from linocut.format import bitstream
from linocut.format.bitstream import LinoFile
from linocut.format.blocks import pack_correction, unpack_lossless
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import load_model, load_tensors, read_description
from linocut.models import shipped


class Codec:
    """A model ready to compress and decompress.

    Args:
        network: trained.
        rotation: of its latents; None fits one for every picture and stores it in the file.
        tables: of the entropy coder; None for codes of fixed length.
        model_id: 8 bytes that files carry.
        name: for people.
        about: facts from model.json.
    """

    def __init__(
        self,
        network: Network,
        rotation: Rotation | None,
        tables: EntropyTables | None,
        model_id: bytes,
        name: str,
        about: Mapping[str, Any],
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.rotation = rotation
        bands = network.bands
        self.coder: Coder = FixedCodes(bands) if tables is None else EntropyCoder(bands, tables)
        self.model_id = model_id.hex()
        self.name = name
        self.about = dict(about)

    @classmethod
    def load(cls, name: str | pathlib.Path = shipped.DEFAULT, device: str = "cpu") -> "Codec":
        """Load a model by name or folder.

        Raises:
            CheckpointError: there is none, or it is damaged or not a complete codec.
        """
        folder = shipped.folder_of(name)
        about = read_description(folder).get("about", {})
        tensors = {key: value.numpy() for key, value in load_tensors(folder).items()}
        network = load_model(folder).to(device)
        try:
            return cls(
                network,
                rotation_from(tensors, network.bands),
                None if network.fixed_bits else EntropyTables.from_tensors(tensors),
                shipped.model_id(folder),
                folder.name if str(name) == str(folder) else str(name),
                about,
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{folder} is not a complete codec: {error}") from None

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return device_of(self.network)

    @property
    def step_range(self) -> tuple[float, float]:
        """Finest and coarsest step that this model was trained for, grey levels."""
        low, high = self.about.get("step_range", (4.0, 160.0))
        return float(low), float(high)

    def compress(
        self,
        picture: Picture,
        *,
        step: float,
        effort: int = DEFAULT_EFFORT,
        extras: Mapping[int, bytes] | None = None,
        resilient: bool = False,
    ) -> bytes:
        """A picture -> the bytes of a .lino file.

        Args:
            picture: uint8 (h, w, 3), any size from 1x1.
            step: quantisation step in grey levels; rounded to the file's grid of 64 steps an
                octave.
            effort: see `linocut.entropy.choice.EFFORTS`.
            extras: further blocks by kind; see `linocut.format.bitstream`.
            resilient: write the layout that survives bit errors.

        Raises:
            DataError: not a picture.
        """
        options: dict[str, Any] = {"effort": effort, "extras": extras, "resilient": resilient}
        return self.encode(self.analyse(picture, once=True), step=step, **options)

    def analyse(self, picture: Picture, *, once: bool = False) -> Analysed:
        """The part of `compress` that does not depend on the step.

        Args:
            picture: uint8 (h, w, 3).
            once: there will be one encoding only, so that nothing of a large picture is kept.
        """
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or 0 in picture.shape:
            raise DataError(
                f"the picture is {picture.dtype} of shape {picture.shape}, expected uint8 (h, w, 3)"
            )
        height, width = picture.shape[:2]
        grid = self._tiles(width, height)
        return analysis.analyse(self.network, self.rotation, picture, grid, once=once)

    def encode(
        self,
        analysed: Analysed,
        *,
        step: float,
        effort: int = DEFAULT_EFFORT,
        extras: Mapping[int, bytes] | None = None,
        resilient: bool = False,
    ) -> bytes:
        """The part of `compress` that depends on the step."""
        options: dict[str, Any] = {"effort": effort, "extras": extras, "resilient": resilient}
        return self.encode_counted(analysed, step=step, **options)[0]

    @numpy_on_one_thread()
    def encode_counted(
        self,
        analysed: Analysed,
        *,
        step: float,
        effort: int = DEFAULT_EFFORT,
        extras: Mapping[int, bytes] | None = None,
        resilient: bool = False,
    ) -> tuple[bytes, NDArray[np.float64]]:
        """The file, and the ideal bits of every plane (zeros for the resilient layout)."""
        chosen = self._choose(analysed, step, effort)
        index = chosen.index
        payloads, segments = [], []
        bits = np.zeros(len(self.coder.planes))
        for _, symbols, bins in chosen:
            if resilient:
                segments.append(encode_segments(self.coder, symbols, index))
            else:
                payload, counted = self.coder.encode_counted(symbols, index, bins)
                payloads.append(payload)
                bits += counted
        blocks = dict(extras or {})
        if analysed.rotation is not None:
            blocks[bitstream.ROTATION] = analysed.rotation.pack()
        correction = chosen.correction()
        if correction is not None:
            blocks[bitstream.CORRECTION] = pack_correction(correction)
        height, width = analysed.picture.shape[:2]
        layout = layout_of(self.network.bands, segments) if resilient else None
        model_id = bytes.fromhex(self.model_id)
        file = LinoFile(width, height, index, model_id, payloads, blocks, layout)
        return bitstream.pack(file), bits

    @numpy_on_one_thread()
    def estimate_bytes(self, analysed: Analysed, *, step: float, effort: int) -> float:
        """Size of the file that `encode` would write, but for a correction of the last layer."""
        chosen = self._choose(analysed, step, effort)
        bits = 0.0
        for _, symbols, bins in chosen:
            bits += float(self.coder.estimate_bits(symbols, chosen.index, bins).sum())
        return self.bytes_around(analysed, step=step) + bits / 8

    def bytes_around(self, analysed: Analysed, *, step: float) -> int:
        """Bytes of a file around its payloads."""
        height, width = analysed.picture.shape[:2]
        payloads = [b""] * len(self._tiles(width, height))
        empty = LinoFile(width, height, self._step_index(step), bytes(8), payloads)
        side = len(analysed.rotation.pack()) + 3 if analysed.rotation else 0
        return len(bitstream.pack(empty)) + side

    def decompress(self, data: bytes, *, max_pixels: int = bitstream.MAX_PIXELS) -> Picture:
        """The bytes of a .lino file -> uint8 (h, w, 3); `decode` says what was damaged, too."""
        return self.decode(data, max_pixels=max_pixels).picture

    @numpy_on_one_thread()
    def decode(self, data: bytes | LinoFile, *, max_pixels: int = bitstream.MAX_PIXELS) -> Decoded:
        """A .lino file of either layout, or what `bitstream.unpack` made of it -> picture, damage.

        Raises:
            BitstreamError: not such a file, damaged, too large, or made by another model.
        """
        file = data if isinstance(data, LinoFile) else bitstream.unpack(data, max_pixels=max_pixels)
        if file.is_lossless:
            exact = unpack_lossless(file.extras[bitstream.LOSSLESS], file.height, file.width)
            return Decoded(exact, None)
        if file.model_id.hex() != self.model_id:
            raise BitstreamError(
                f"the file was made by model {file.model_id.hex()}, "
                f"this one is {self.model_id} ({self.name})"
            )
        own = file.extras.get(bitstream.ROTATION)
        used = rotation.of_file(own, self.rotation, self.network.bands)
        block = file.extras.get(bitstream.CORRECTION)
        scale = None
        if block is not None:
            scale = scale_of(numbers_of(block, self.network))
        picture = np.empty((file.height, file.width, 3), dtype=np.uint8)
        squares = np.zeros(2, dtype=np.int64)

        def symbols_of(number: int, tile: Tile) -> Symbols:
            symbols, *lost = self._decode(file, number, tile)
            squares[:] += lost
            return symbols

        grid = self._tiles(file.width, file.height)
        for tile, window in windows(grid, symbols_of, self.network.bands):
            pixels = synthesise_window(self.network, used, window, file.step_index, scale)
            inner = pixels[tile.top - tile.window[0] :, tile.left - tile.window[1] :]
            place = picture[tile.top : tile.bottom, tile.left : tile.right]  # clipped by numpy
            place[:] = inner[: place.shape[0], : place.shape[1]]
        return Decoded(picture, damage_of(file, *squares.tolist()))

    @numpy_on_one_thread()
    def decode_symbols(self, data: bytes) -> list[Symbols]:
        """The symbols of every tile: equal on every machine, with any number of threads."""
        file = bitstream.unpack(data)
        grid = self._tiles(file.width, file.height)
        return [self._decode(file, *item)[0] for item in enumerate(grid)]

    def _step_index(self, step: float) -> int:
        return self.coder.nearest_index(step_index(step))

    def _tiles(self, width: int, height: int) -> list[Tile]:
        return list(tiles(width, height, self.network.multiple, self.network.reach))

    def _choose(self, analysed: Analysed, step: float, effort: int) -> Choice:
        height, width = analysed.picture.shape[:2]
        return Choice(
            self.network, self.coder, self.rotation, analysed, self._tiles(width, height),
            self._step_index(step), effort, self.about,
        )  # fmt: skip

    def _decode(self, file: LinoFile, number: int, tile: Tile) -> tuple[Symbols, int, int]:
        """Symbols of a tile; how many of its squares are blurred and how many concealed."""
        height, width = tile.bottom - tile.top, tile.right - tile.left
        if file.resilience is not None:
            return decode_segments(self.coder, file, number, (height, width))
        symbols = self.coder.decode(file.tiles[number], height, width, file.step_index)
        return [np.clip(band, -32768, 32767).astype(np.int16) for band in symbols], 0, 0

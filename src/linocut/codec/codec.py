"""Pictures <-> .lino files.

    picture --pad, cut--> windows --analysis--> latents --rotate--> r --quantise--> symbols
    symbols --code--> file --decode--> symbols
    symbols --dequantise--> r_hat --rotate back--> latents --synthesis--> windows --cut--> picture

>>> from linocut import Codec
>>> codec = Codec.load("default")
>>> data = codec.compress(picture, step=24.0)        # picture: uint8 (h, w, 3)
>>> decoded = codec.decompress(data)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.codec import rotation, tiles
from linocut.codec.correction import numbers_of, scale_of
from linocut.codec.effort import Choice, EncodeOptions
from linocut.codec.rotation import Rotation, rotation_from
from linocut.codec.segments import (
    Decoded,
    Lost,
    SquareCoder,
    damage_of,
    decode_segments,
    encode_segments,
    layout_of,
)
from linocut.codec.tiles import Analysed, Tile
from linocut.codec.transforms import (
    Geometry,
    GraphTransforms,
    Picture,
    Transforms,
    numpy_on_one_thread,
)
from linocut.entropy.choice import DEFAULT_EFFORT
from linocut.entropy.coder import Coder, EntropyCoder
from linocut.entropy.fixed_codes import FixedCodes
from linocut.entropy.planes import Symbols, step_index, step_of
from linocut.entropy.tables import EntropyTables
from linocut.errors import BitstreamError, CheckpointError, DataError
from linocut.format import bitstream
from linocut.format.bitstream import LinoFile, pack_correction, unpack_lossless
from linocut.models import folders
from linocut.models.folders import About, Model

DEFAULT_OPTIONS = EncodeOptions()


class Codec:
    """A model ready to compress and decompress.

    Args:
        transforms: run the network.
        rotation: of its latents; None fits one for every picture and stores it in the file.
        coder: of its symbols.
        model_id: 8 bytes that files carry.
        name: for people.
        about: facts from model.json.
    """

    def __init__(
        self,
        transforms: Transforms,
        rotation: Rotation | None,
        coder: Coder,
        model_id: bytes,
        name: str,
        about: About,
    ) -> None:
        self.transforms = transforms
        self.geometry: Geometry = transforms.geometry
        self.rotation = rotation
        self.coder = coder
        self.model_id = model_id.hex()
        self.name = name
        self.about = about

    @classmethod
    def load(
        cls, name: str | Path = folders.DEFAULT, device: str = "cpu", threads: int | None = None
    ) -> Codec:
        """Load a model by name or folder.

        Args:
            name: of a shipped model, or a folder.
            device: `cpu`, `cuda`, or `auto` for CUDA where it can be used.
            threads: that the network may use; None for OMP_NUM_THREADS, or else all cores.

        Raises:
            CheckpointError: there is none, or it is damaged or not a complete codec.
            ConfigError: the device cannot be used here.
        """
        folder = folders.folder_of(name)
        model = Model.of(folder)
        try:
            if not model.description.latent:
                raise ValueError(
                    "model.json says nothing of its latent: "
                    f"`python -m linocut.lab.networks.export {folder}` writes that and the graphs"
                )
            geometry = Geometry.from_json(model.description.latent)
            return cls(
                GraphTransforms(folder, geometry, device, threads),
                rotation_from(model.tensors, geometry.bands),
                coder_of(geometry, model.tensors),
                model.model_id,
                folder.name if str(name) == str(folder) else str(name),
                model.description.about,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder} is not a complete codec: {error}") from None

    def __reduce__(self) -> Any:
        """A loaded codec is pickled as where it came from: tables and sessions are made anew."""
        if isinstance(self.transforms, GraphTransforms):
            source = self.transforms
            return _reload, (source.folder, source.device, source.threads, self.name)
        return super().__reduce__()

    def with_transforms(self, transforms: Transforms) -> Codec:
        """The same codec with another network for the same latents."""
        return Codec(
            transforms, self.rotation, self.coder, bytes.fromhex(self.model_id), self.name,
            self.about,
        )  # fmt: skip

    @property
    def step_range(self) -> tuple[float, float]:
        """Finest and coarsest step that this model was made for, grey levels."""
        return self.about.step_range

    def step_for(self, rate_bpp: float) -> float:
        """The step at which the validation pictures have this mean rate, within the range."""
        steps, rates = np.array(self.about.rate_curve).T
        order = np.argsort(rates)
        log_step = np.interp(math.log(rate_bpp), np.log(rates[order]), np.log(steps[order]))
        return step_of(step_index(math.exp(log_step)))

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
        options = EncodeOptions(effort, extras or {}, resilient)
        return self.encode(self.analyse(picture, once=True), step, options)

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
        return tiles.analyse(self.transforms, self.rotation, picture, grid, once=once)

    def encode(
        self, analysed: Analysed, step: float, options: EncodeOptions = DEFAULT_OPTIONS
    ) -> bytes:
        """The part of `compress` that depends on the step."""
        return self.encode_counted(analysed, step, options)[0]

    @numpy_on_one_thread()
    def encode_counted(
        self, analysed: Analysed, step: float, options: EncodeOptions = DEFAULT_OPTIONS
    ) -> tuple[bytes, NDArray[np.float64]]:
        """The file, and the ideal bits of every plane (zeros for the resilient layout)."""
        chosen = self._choose(analysed, step, options.effort, options.resilient)
        index = chosen.index
        payloads, segments = [], []
        bits = np.zeros(len(self.coder.planes))
        for _, symbols, bins in chosen:
            if options.resilient:
                segments.append(encode_segments(self.coder, symbols, index))
            else:
                payload, counted = self.coder.encode_counted(symbols, index, bins)
                payloads.append(payload)
                bits += counted
        blocks = dict(options.extras)
        if analysed.rotation is not None:
            blocks[bitstream.ROTATION] = analysed.rotation.pack()
        correction = chosen.correction()
        if correction is not None:
            blocks[bitstream.CORRECTION] = pack_correction(correction)
        height, width = analysed.picture.shape[:2]
        layout = layout_of(self.geometry.bands, segments) if options.resilient else None
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

    def decompress(
        self, data: bytes | bytearray | memoryview, *, max_pixels: int = bitstream.MAX_PIXELS
    ) -> Picture:
        """The bytes of a .lino file -> uint8 (h, w, 3); `decode` says what was damaged, too.

        Raises:
            BitstreamError: not such a file, damaged, too large, or made by another model.
        """
        return self.decode(bitstream.unpack(bytes(data), max_pixels=max_pixels)).picture

    @numpy_on_one_thread()
    def decode(self, file: LinoFile) -> Decoded:
        """What `bitstream.unpack` made of a file of either layout -> picture, damage.

        Raises:
            BitstreamError: damaged, or made by another model.
        """
        if file.is_lossless:
            exact = unpack_lossless(file.extras[bitstream.LOSSLESS], file.height, file.width)
            return Decoded(exact, None)
        if file.model_id.hex() != self.model_id:
            raise BitstreamError(
                f"the file was made by model {file.model_id.hex()}, "
                f"this one is {self.model_id} ({self.name})"
            )
        own = file.extras.get(bitstream.ROTATION)
        used = rotation.of_file(own, self.rotation, self.geometry.bands)
        block = file.extras.get(bitstream.CORRECTION)
        scale = None if block is None else scale_of(numbers_of(block, self.geometry))
        picture = np.empty((file.height, file.width, 3), dtype=np.uint8)
        step, grid = self.coder.told_step(file.step_index), self._tiles(file.width, file.height)
        total = Lost(0, 0)
        for tile, window, lost in tiles.windows(
            grid, lambda number, tile: self._decode(file, number, tile), self.geometry.bands
        ):
            y_hat = used.inverse_transform(self.coder.dequantise(window, file.step_index))
            pixels = self.transforms.synthesis(y_hat, step, scale)
            inner = pixels[tile.top - tile.window[0] :, tile.left - tile.window[1] :]
            place = picture[tile.top : tile.bottom, tile.left : tile.right]  # clipped by numpy
            place[:] = inner[: place.shape[0], : place.shape[1]]
            total = total.and_more(lost)
        return Decoded(picture, damage_of(file, total))

    @numpy_on_one_thread()
    def decode_symbols(self, data: bytes | bytearray | memoryview) -> list[Symbols]:
        """The symbols of every tile: equal on every machine, with any number of threads."""
        file = bitstream.unpack(bytes(data))
        grid = self._tiles(file.width, file.height)
        return [self._decode(file, *item)[0] for item in enumerate(grid)]

    def _step_index(self, step: float) -> int:
        return self.coder.nearest_index(step_index(step))

    def _tiles(self, width: int, height: int) -> list[Tile]:
        geometry = self.geometry
        return list(tiles.tiles_of(width, height, geometry.multiple, geometry.reach))

    def _choose(
        self, analysed: Analysed, step: float, effort: int, resilient: bool = False
    ) -> Choice:
        height, width = analysed.picture.shape[:2]
        codes = SquareCoder(self.coder) if resilient and self.coder.layered else self.coder
        return Choice(
            self.transforms, codes, self.rotation, analysed, self._tiles(width, height),
            self._step_index(step), effort, self.about,
        )  # fmt: skip

    def _decode(self, file: LinoFile, number: int, tile: Tile) -> tuple[Symbols, Lost]:
        """Symbols of a tile, and what of it was lost."""
        height, width = tile.bottom - tile.top, tile.right - tile.left
        if file.resilience is not None:
            return decode_segments(self.coder, file, number, (height, width))
        symbols = self.coder.decode(file.tiles[number], height, width, file.step_index)
        return [np.clip(band, -32768, 32767).astype(np.int16) for band in symbols], Lost(0, 0)


def _reload(folder: Path, device: str, threads: int | None, name: str) -> Codec:
    codec = Codec.load(folder, device, threads)
    codec.name = name
    return codec


def coder_of(geometry: Geometry, tensors: Mapping[str, NDArray[np.generic]]) -> Coder:
    """What codes the symbols of a model: codes of fixed length, or its tables.

    Raises:
        KeyError, ValueError: tables are missing, or for another latent.
    """
    if geometry.fixed_bits:
        return FixedCodes(geometry.bands)
    return EntropyCoder(geometry.bands, EntropyTables.from_tensors(tensors))

"""Pictures <-> .lino files.

picture --pad, cut--> windows --analysis--> latents --rotate--> r --quantise--> symbols --code-->
file
file --decode--> symbols --dequantise--> r_hat --rotate back--> latents --synthesis--> windows
--cut--> picture

>>> from linocut.codec import Codec
>>> codec = Codec.load("default")
>>> data = codec.compress(picture, step=24.0)        # picture: uint8 (h, w, 3)
>>> decoded = codec.decompress(data)
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linocut import bitstream, models, rotation
from linocut.bitstream import LinoFile
from linocut.checkpoint import load_model, load_tensors, read_description
from linocut.entropy import EntropyCoder, EntropyTables
from linocut.errors import BitstreamError, CheckpointError, DataError
from linocut.networks import Network
from linocut.quantization import dequantise, step_index, step_of
from linocut.rate_distortion import DEFAULT_EFFORT, choose_symbols
from linocut.rotation import Rotation, rotation_from
from linocut.tiling import Symbols, Tile, join, tiles

Picture = NDArray[np.uint8]

CACHED_PIXELS = 2**24
"""Latents of pictures up to this size are kept between two encodings; larger ones are computed
again.
"""


@dataclass
class Analysed:
    """A picture on its way to a file: what `encode` needs at any step.

    Attributes:
        picture: uint8 (h, w, 3).
        latents: rotated latents of each tile, or None where they are computed on demand.
        rotation: the picture's own rotation, if the model works that way.
    """

    picture: Picture
    latents: list[list[NDArray[np.float32]]] | None
    rotation: Rotation | None


class Codec:
    """A model ready to compress and decompress.

    Args:
        network: trained.
        rotation: of its latents; None fits one for every picture and stores it in the file.
        tables: of the entropy coder.
        model_id: 8 bytes that files carry.
        name: for people.
        about: facts from model.json.
    """

    def __init__(
        self,
        network: Network,
        rotation: Rotation | None,
        tables: EntropyTables,
        model_id: bytes,
        name: str,
        about: Mapping[str, Any],
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.rotation = rotation
        self.coder = EntropyCoder(network.bands, tables)
        self.model_id = model_id.hex()
        self.name = name
        self.about = dict(about)

    @classmethod
    def load(cls, name: str | pathlib.Path = models.DEFAULT, device: str = "cpu") -> "Codec":
        """Load a model by name or folder.

        Raises:
            CheckpointError: there is none, or it is damaged or not a complete codec.
        """
        folder = models.folder_of(name)
        about = read_description(folder).get("about", {})
        tensors = {key: value.numpy() for key, value in load_tensors(folder).items()}
        network = load_model(folder).to(device)
        try:
            tables = EntropyTables(
                tensors["tables.weights"], tensors["tables.frequencies"], tensors["tables.occupied"]
            )
            return cls(
                network,
                rotation_from(tensors, network.bands),
                tables,
                models.model_id(folder),
                folder.name if str(name) == str(folder) else str(name),
                about,
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{folder} is not a complete codec: {error}") from None

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        device: torch.device = next(self.network.parameters()).device
        return device

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
    ) -> bytes:
        """A picture -> the bytes of a .lino file.

        Args:
            picture: uint8 (h, w, 3), any size from 1x1.
            step: quantisation step in grey levels; rounded to the file's grid of 64 steps an
                octave.
            effort: see `linocut.rate_distortion.EFFORTS`.
            extras: further blocks by kind; see `linocut.bitstream`.

        Raises:
            DataError: not a picture.
        """
        return self.encode(self.analyse(picture), step=step, effort=effort, extras=extras)

    def analyse(self, picture: Picture) -> Analysed:
        """The part of `compress` that does not depend on the step."""
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or 0 in picture.shape:
            raise DataError(
                f"the picture is {picture.dtype} of shape {picture.shape}, expected uint8 (h, w, 3)"
            )
        height, width = picture.shape[:2]
        if self.rotation is not None and height * width > CACHED_PIXELS:
            return Analysed(picture, None, None)
        raw = [self._analyse_tile(picture, tile) for tile in self._tiles(width, height)]
        own = None
        if self.rotation is None:
            own = rotation.fit(self.network.bands, raw, centre=False)
            own = Rotation.unpack(own.pack(), self.network.bands)
        used = self.rotation or own
        assert used is not None
        return Analysed(picture, [used.transform(latent) for latent in raw], own)

    def encode(
        self,
        analysed: Analysed,
        *,
        step: float,
        effort: int = DEFAULT_EFFORT,
        extras: Mapping[int, bytes] | None = None,
    ) -> bytes:
        """The part of `compress` that depends on the step."""
        index = step_index(step)
        height, width = analysed.picture.shape[:2]
        payloads = []
        for number, tile in enumerate(self._tiles(width, height)):
            symbols = choose_symbols(
                self.coder, self._rotated(analysed, number, tile), index, effort
            )
            payloads.append(self.coder.encode(symbols, index))
        blocks = dict(extras or {})
        if analysed.rotation is not None:
            blocks[bitstream.ROTATION] = analysed.rotation.pack()
        return bitstream.pack(
            LinoFile(width, height, index, bytes.fromhex(self.model_id), payloads, blocks)
        )

    def estimate_bytes(
        self, analysed: Analysed, *, step: float, effort: int = DEFAULT_EFFORT
    ) -> float:
        """Size of the file that `encode` would write, from ideal code lengths."""
        index = step_index(step)
        height, width = analysed.picture.shape[:2]
        bits = 0.0
        count = 0
        for number, tile in enumerate(self._tiles(width, height)):
            symbols = choose_symbols(
                self.coder, self._rotated(analysed, number, tile), index, effort
            )
            bits += float(self.coder.estimate_bits(symbols, index).sum())
            count += 1
        empty = LinoFile(width, height, index, bytes(8), [b""] * count)
        side = len(analysed.rotation.pack()) + 3 if analysed.rotation else 0
        return len(bitstream.pack(empty)) + side + bits / 8

    def decompress(self, data: bytes, *, max_pixels: int = bitstream.MAX_PIXELS) -> Picture:
        """The bytes of a .lino file -> uint8 (h, w, 3).

        Raises:
            BitstreamError: not such a file, damaged, too large, or made by another model.
        """
        file = bitstream.unpack(data, max_pixels=max_pixels)
        if file.model_id.hex() != self.model_id:
            raise BitstreamError(
                f"the file was made by model {file.model_id.hex()}, "
                f"this one is {self.model_id} ({self.name})"
            )
        if file.flags & bitstream.FLAG_RESILIENT:
            raise BitstreamError("the file has the resilient layout, unknown to this decoder")
        used = self._rotation_of(file)
        picture = np.empty((file.height, file.width, 3), dtype=np.uint8)
        grid = list(self._tiles(file.width, file.height))
        columns = bitstream.tile_grid(file.width, file.height)[1]
        decoded: dict[tuple[int, int], Symbols] = {}
        for number, tile in enumerate(grid):
            if tile.column == 0:
                decoded = {k: v for k, v in decoded.items() if k[0] >= tile.row - 1}
                for ahead in range(number, min(number + 2 * columns, len(grid))):
                    other = grid[ahead]
                    if (other.row, other.column) not in decoded:
                        decoded[other.row, other.column] = self._decode(file, ahead, other)
            window = join(decoded, tile, grid, self.network.bands)
            pixels = self._synthesise(used, window, file.step_index)
            inner = pixels[tile.top - tile.window[0] :, tile.left - tile.window[1] :]
            place = picture[tile.top : tile.bottom, tile.left : tile.right]  # clipped by numpy
            place[:] = inner[: place.shape[0], : place.shape[1]]
        return picture

    def _rotation_of(self, file: LinoFile) -> Rotation:
        """The model's rotation, or the file's."""
        own = file.extras.get(bitstream.ROTATION)
        if self.rotation is not None:
            if own is not None:
                raise BitstreamError("the file carries a rotation, this model has its own")
            return self.rotation
        if own is None:
            raise BitstreamError("the file lacks the rotation that this model expects in it")
        return Rotation.unpack(own, self.network.bands)

    def decode_symbols(self, data: bytes) -> list[Symbols]:
        """The symbols of every tile: equal on every machine, with any number of threads."""
        file = bitstream.unpack(data)
        return [
            self._decode(file, *item) for item in enumerate(self._tiles(file.width, file.height))
        ]

    def _tiles(self, width: int, height: int) -> list[Tile]:
        return list(tiles(width, height, self.network.multiple, self.network.reach))

    @torch.inference_mode()
    def _analyse_tile(self, picture: Picture, tile: Tile) -> list[NDArray[np.float32]]:
        """Latent of one tile, bands (c, h, w), from its window of the picture."""
        top, left, bottom, right = tile.window
        height, width = picture.shape[:2]
        window = picture[top : min(bottom, height), left : min(right, width)]
        missing = (bottom - top - window.shape[0], right - left - window.shape[1])
        window = np.pad(window, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        x = torch.from_numpy(window).to(self.device).permute(2, 0, 1)[None].float() / 255.0
        bands = self.network.analysis(x.contiguous(memory_format=torch.channels_last))
        latent = []
        for band, values in zip(self.network.bands, bands, strict=True):
            y, x0 = (tile.top - top) // band.stride, (tile.left - left) // band.stride
            h, w = (tile.bottom - tile.top) // band.stride, (tile.right - tile.left) // band.stride
            latent.append(values[0, :, y : y + h, x0 : x0 + w].float().cpu().numpy())
        return latent

    def _rotated(self, analysed: Analysed, number: int, tile: Tile) -> list[NDArray[np.float32]]:
        if analysed.latents is not None:
            return analysed.latents[number]
        if self.rotation is None:
            raise DataError("a picture this large needs a model with a rotation of its own")
        return self.rotation.transform(self._analyse_tile(analysed.picture, tile))

    def _decode(self, file: LinoFile, number: int, tile: Tile) -> Symbols:
        height, width = tile.bottom - tile.top, tile.right - tile.left
        symbols = self.coder.decode(file.tiles[number], height, width, file.step_index)
        return [np.clip(band, -32768, 32767).astype(np.int16) for band in symbols]

    @torch.inference_mode()
    def _synthesise(
        self, used: Rotation, symbols: Sequence[NDArray[np.int32]], index: int
    ) -> Picture:
        """Symbols of a window -> its pixels, uint8 (h, w, 3)."""
        step = step_of(index)
        y_hat = used.inverse_transform([dequantise(band, step) for band in symbols])
        bands = [torch.from_numpy(band)[None].to(self.device) for band in y_hat]
        x_hat = self.network.synthesis(bands, torch.tensor([step], device=self.device))
        pixels = (x_hat[0] * 255.0).round_().clamp_(0, 255).to(torch.uint8)
        picture: Picture = pixels.permute(1, 2, 0).cpu().numpy()
        return picture

"""What screenshots cost: six made here, as .lino, as PNG, and without lossless coding.

    python -m benchmarks.screenshots

A row for each picture and quality: bytes of the .lino file, of the one that the network alone would
have given, and of an optimised PNG.
"""

import io
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from linocut.codec.codec import Codec
from linocut.codec.picture_files import Target, compress_picture
from linocut.codec.rate_control import quality_step
from linocut.pictures.image import Picture, RgbArray, encode_picture

QUALITIES = (40, 75, 100)
WORDS = (
    "picture", "is", "cut", "into", "tiles", "and", "every", "tile", "planes", "whose", "samples",
    "are", "coded", "one", "after", "other", "by", "what", "already", "known", "neighbours",
)  # fmt: skip


def main() -> int:
    """Print the table."""
    codec = Codec.load()
    sys.stdout.write("picture     px         quality   .lino   network     PNG\n")
    for name, image in screenshots().items():
        picture = Picture(image)
        png = len(encode_picture(picture)[0])
        analysed = codec.analyse(image)
        for quality in QUALITIES:
            found = len(compress_picture(codec, picture, Target("quality", quality))[0])
            network = len(codec.encode(analysed, step=quality_step(quality)))
            size = f"{image.shape[1]}x{image.shape[0]}"
            sys.stdout.write(
                f"{name:10s}  {size:9s}  {quality:7d}  {found:6d}  {network:8d}  {png:6d}\n"
            )
    return 0


def screenshots() -> dict[str, RgbArray]:
    """Six pictures of a screen, (h, w, 3) uint8, always the same."""
    rng = np.random.default_rng(0)
    return {
        "plot": _plot(rng),
        "terminal": _text(rng, 640, 400, 13, (12, 12, 28), [(200, 200, 200), (90, 220, 90)]),
        "page": _text(rng, 600, 800, 16, (255, 255, 255), [(20, 20, 20)]),
        "diagram": _diagram(rng),
        "table": _table(rng),
        "desktop": _desktop(rng),
    }


def _plot(rng: np.random.Generator) -> RgbArray:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.8), dpi=100)
    for level in range(4):
        axes.plot(np.cumsum(rng.normal(0, 1, 200)) + 8 * level, label=f"series {level}")
    axes.set(title="Random walks", xlabel="step", ylabel="place")
    axes.legend()
    axes.grid(alpha=0.4)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return np.array(Image.open(file).convert("RGB"))


def _text(
    rng: np.random.Generator,
    width: int,
    height: int,
    size: int,
    paper: tuple[int, int, int],
    inks: list[tuple[int, int, int]],
) -> RgbArray:
    page = Image.new("RGB", (width, height), paper)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    for y in range(size, height - 2 * size, round(1.4 * size)):
        line = " ".join(rng.choice(WORDS, 5 + width // (12 * size)))
        draw.text(
            (size, y), line[: width * 2 // size - 6], inks[int(rng.integers(len(inks)))], font
        )
    return np.array(page)


def _diagram(rng: np.random.Generator) -> RgbArray:
    page = Image.new("RGB", (800, 500), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    corners = [(60 + 190 * (i % 4), 70 + 150 * (i // 4)) for i in range(12)]
    for (x, y), (to_x, to_y) in pairwise(corners):
        draw.line((x + 60, y + 30, to_x + 60, to_y + 30), (90, 90, 90), 2)
    for x, y in corners:
        fill = tuple(int(value) for value in rng.integers(150, 255, 3))
        draw.rounded_rectangle((x, y, x + 120, y + 60), 12, fill, (30, 30, 30), 2)
        draw.text((x + 18, y + 20), str(rng.choice(WORDS)), (10, 10, 10), font)
    return np.array(page)


def _table(rng: np.random.Generator) -> RgbArray:
    page = Image.new("RGB", (720, 480), (250, 250, 250))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for row in range(20):
        if row % 2:
            draw.rectangle((0, 24 * row, 720, 24 * row + 24), (232, 240, 250))
        for column in range(6):
            draw.text((12 + 118 * column, 24 * row + 5), f"{rng.normal():.5f}", (40, 40, 60), font)
            draw.line((118 * column, 0, 118 * column, 480), (190, 190, 190))
    return np.array(page)


def _desktop(rng: np.random.Generator) -> RgbArray:
    shade = np.linspace((40, 70, 120), (90, 140, 190), 540)
    page = Image.fromarray(np.repeat(np.rint(shade).astype(np.uint8)[:, None], 960, axis=1))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    window = Image.fromarray(_text(rng, 500, 330, 14, (252, 252, 252), [(30, 30, 30)]))
    page.paste(window, (90, 110))
    draw.rectangle((90, 82, 589, 109), (225, 225, 228))
    draw.text((300, 88), "linocut", (50, 50, 50), font)
    for place in range(8):
        colour = tuple(int(value) for value in rng.integers(40, 250, 3))
        x, y = 660 + 70 * (place % 4), 120 + 90 * (place // 4)
        draw.rounded_rectangle((x, y, x + 48, y + 48), 10, colour)
    draw.rectangle((0, 512, 959, 539), (28, 28, 34))
    return np.array(page)


if __name__ == "__main__":
    sys.exit(main())

"""Create the README's strip of a film: grey frames above, coloured ones below.

    python scripts/film_showcase.py docs/film.jpg

The film has two shots: a camera that moves over a photograph, the left one of scikit-image's stereo pair, and then over
the astronaut. Its references are the right picture of the pair, and the astronaut mirrored and warped; each shot finds
its own. Needs the extra ``pdnla[film]``.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageOps

from in_process import run_command
from pdnla.cli.colorize import main as pdnla_colorize
from pdnla.data.modules import BUILTIN_VALIDATION
from pdnla.evaluation.protocols import warped
from pdnla.images.io import write_image

SIZE, GAP = (256, 192), 4


def shot(scene: Image.Image, length: int) -> Iterator[Image.Image]:
    """Yield the frames of a camera that moves to the right and closer."""
    for number in range(length):
        width = 1 - 0.3 * number / length
        left = 0.3 * number / length
        box = (left * scene.width, 0.1 * left * scene.height, (left + width * 0.9) * scene.width, 0.9 * scene.height)
        height = (box[2] - box[0]) * SIZE[1] / SIZE[0]
        yield scene.resize(SIZE, Image.Resampling.BICUBIC, (box[0], box[1], box[2], min(box[1] + height, scene.height)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, help="where the strip goes")
    parser.add_argument("--frames", type=int, default=24, help="of each shot, of which three are shown")
    options = parser.parse_args()
    length = options.frames
    shown = [start + number for start in (0, length) for number in (0, (length - 1) // 2, length - 1)]
    photographs = Path(skimage.__file__).parent / "data"
    left, right = (Image.open(photographs / name).convert("RGB") for name in BUILTIN_VALIDATION)
    astronaut = Image.open(photographs / "astronaut.png").convert("RGB").crop((0, 0, 512, 384))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("frames", "references"):
            (folder / name).mkdir()
        right.save(folder / "references" / "motorcycle.png")
        ImageOps.mirror(warped(astronaut, 24.0, np.random.PCG64(0))).save(folder / "references" / "portrait.png")
        frames = [frame.convert("L") for scene in (left, astronaut) for frame in shot(scene, length)]
        for number, frame in enumerate(frames):
            frame.save(folder / "frames" / f"{number:03d}.png")
        grey, references, coloured = (str(folder / name) for name in ("frames", "references", "coloured"))
        run_command("pdnla-colorize", pdnla_colorize, grey, references, "--film", "-o", coloured)
        strip = Image.new("RGB", (len(shown) * (SIZE[0] + GAP) - GAP, 2 * SIZE[1] + GAP), "white")
        for column, number in enumerate(shown):
            result = Image.open(folder / "coloured" / f"{number:03d}.png")
            for row, picture in enumerate((frames[number], result)):
                strip.paste(picture.convert("RGB"), (column * (SIZE[0] + GAP), row * (SIZE[1] + GAP)))
    write_image(options.file, strip)


if __name__ == "__main__":
    main()

"""Create the README's rows of pictures with the default weights.

    python scripts/showcase.py docs/comparison.jpg

Rows: target, reference, result, truth. The photographs are scikit-image's: a stereo pair; and three of which the
reference is the photograph itself, mirrored and warped as `pdnla-eval protocol=pseudo` does it.
"""

import sys
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageOps

from pdnla import Colorizer
from pdnla.data.modules import BUILTIN_VALIDATION
from pdnla.evaluation.protocols import warped
from pdnla.images.io import write_image

SIDE, WARP, GAP = 320, 32.0, 6


def square(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    photographs = Path(skimage.__file__).parent / "data"
    pairs = [tuple(square(photographs / name) for name in BUILTIN_VALIDATION)]
    for seed, name in enumerate(("astronaut.png", "coffee.png", "chelsea.png")):
        truth = square(photographs / name)
        pairs.append((truth, ImageOps.mirror(warped(truth, WARP, np.random.PCG64(seed)))))
    colorizer = Colorizer()
    strip = Image.new("RGB", (4 * SIDE + 3 * GAP, len(pairs) * (SIDE + GAP) - GAP), "white")
    for row, (truth, reference) in enumerate(pairs):
        target = truth.convert("L")
        for column, picture in enumerate((target, reference, colorizer(target, reference), truth)):
            strip.paste(picture.convert("RGB"), (column * (SIDE + GAP), row * (SIDE + GAP)))
    write_image(Path(sys.argv[1]), strip)


if __name__ == "__main__":
    main()

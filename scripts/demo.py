"""Train for a few minutes on scikit-image's photographs, then colour one that was not trained on.

The grey target is the left picture of a stereo pair, the reference the right one, so the truth is known.
"""

import subprocess
import sys
from pathlib import Path

import skimage
import torch
from PIL import Image

from pdnla import Colorizer
from pdnla.data.images import write_image
from pdnla.data.modules import BUILTIN_VALIDATION
from pdnla.data.photographs import centre_crop
from pdnla.metrics import chroma_error

FOLDER = Path("demo")
SIDE = 384
GAP = 8


def as_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2).float() / 255


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    strip = Image.new("RGB", (len(pictures) * (SIDE + GAP) - GAP, SIDE), "white")
    for index, picture in enumerate(pictures):
        strip.paste(picture.convert("RGB"), (index * (SIDE + GAP), 0))
    return strip


def main() -> None:
    run = FOLDER / "run"
    train = [str(Path(sys.executable).with_name("pdnla-train")), "experiment=demo", f"hydra.run.dir={run}"]
    subprocess.run(train, check=True)

    photographs = Path(skimage.__file__).parent / "data"
    truth, reference = (centre_crop(Image.open(photographs / name).convert("RGB"), SIDE) for name in BUILTIN_VALIDATION)
    target = truth.convert("L")
    result = Colorizer(run / "last.ckpt", size=128)(target, reference)
    error, grey_error = (float(chroma_error(as_tensor(p), as_tensor(truth))) for p in (result, target))
    print(f"chroma error of the result {error:.1f}, of a grey one {grey_error:.1f} (CIELAB units)")
    picture = FOLDER / "comparison.png"
    write_image(picture, side_by_side([target, reference, result, truth]))
    print("target | reference | result | truth:")
    print(picture.resolve())


if __name__ == "__main__":
    main()

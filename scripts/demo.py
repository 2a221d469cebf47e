"""Colour a photograph with the default weights, then train other weights for a few minutes and compare.

The grey target is the left picture of a stereo pair, the reference the right one, so the truth is known. The published
network's weights, ``pdnla_tiny``, are trained on the reference for three minutes and come closer to the truth, which
they do not see. Arguments are further options of this training, such as ``trainer.max_steps=50``.
"""

import sys
from pathlib import Path

import skimage
import torch
from PIL import Image

from in_process import run_command
from pdnla import Colorizer
from pdnla.cli.train import main as pdnla_train
from pdnla.data.modules import BUILTIN_VALIDATION
from pdnla.data.photographs import centre_crop
from pdnla.evaluation.metrics import chroma_error
from pdnla.images.io import write_image

FOLDER = Path("demo")
SIDE = 384
TRAINED_SIDE = 128  # near the crops of the training
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
    photographs = Path(skimage.__file__).parent / "data"
    truth, reference = (centre_crop(Image.open(photographs / name).convert("RGB"), SIDE) for name in BUILTIN_VALIDATION)
    target = truth.convert("L")
    pictures = [target, reference]

    def error(picture: Image.Image) -> float:
        return float(chroma_error(as_tensor(picture), as_tensor(truth)))

    def colour(colorizer: Colorizer, whose: str) -> None:
        pictures.append(colorizer(target, reference))
        print(f"chroma error of {whose}: {error(pictures[-1]):.1f} (CIELAB units)", flush=True)

    print(f"chroma error of a grey result: {error(target):.1f}")
    colour(Colorizer(size=SIDE), "the default weights")
    write_image(FOLDER / "pretrained.png", side_by_side([*pictures, truth]))
    print(f"target | reference | result | truth: {(FOLDER / 'pretrained.png').resolve()}", flush=True)

    colour(Colorizer("pdnla_tiny", size=TRAINED_SIDE), "pdnla_tiny")
    run = FOLDER / "run"
    run_command("pdnla-train", pdnla_train, "experiment=demo", f"hydra.run.dir={run}", *sys.argv[1:])
    colour(
        Colorizer(run / "last.ckpt", size=TRAINED_SIDE), "pdnla_tiny after three minutes of training on the reference"
    )
    picture = FOLDER / "comparison.png"
    write_image(picture, side_by_side([*pictures, truth]))
    print("target | reference | default weights | pdnla_tiny | pdnla_tiny after the training | truth:")
    print(picture.resolve())


if __name__ == "__main__":
    main()

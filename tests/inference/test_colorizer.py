"""Colouring: any size in and out, luminance and alpha kept, chroma at full size without bleeding."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor, nn

from pdnla import memory
from pdnla.devices import keep_compiled_code
from pdnla.errors import UserError
from pdnla.images import color
from pdnla.images.io import Picture, picture_from_pil
from pdnla.inference import colorizer
from pdnla.inference.colorizer import Colorizer
from pdnla.inference.preprocessing import rows_tensor
from pdnla.network import PDNLA


class Colours(NamedTuple):
    mid: Tensor
    out: Tensor


class MeanColour(nn.Module):
    """A stand-in for the network: every pixel gets the reference's mean colour."""

    channel = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.encoded: list[tuple[int, ...]] = []
        self.targets: list[tuple[int, ...]] = []

    def encode_reference(self, reference: Tensor) -> tuple[Tensor]:
        assert not any(side % 16 for side in reference.shape[-2:])
        self.encoded.append(tuple(reference.shape))
        return (reference.mean(dim=(2, 3), keepdim=True),)

    def forward(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Colours:
        assert not any(side % 16 for side in target.shape[-2:])
        assert torch.equal(target[:, 0], target[:, 1])
        self.targets.append(tuple(target.shape))
        code = reference if isinstance(reference, tuple) else self.encode_reference(reference)
        out = (code[0] * self.scale).expand_as(target)
        return Colours(out, out)


class Known(MeanColour):
    """A stand-in for the network: returns a known picture, resized."""

    def __init__(self, image: Image.Image) -> None:
        super().__init__()
        self.picture = Picture(image)

    def forward(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Colours:
        height, width = target.shape[-2:]
        small = self.picture.resized((width, height)).rows(0, height)
        out = torch.from_numpy(small).permute(2, 0, 1).expand_as(target) * 2 - 1
        return Colours(out, out)


def fake(network: nn.Module, **options: object) -> Colorizer:
    return Colorizer(network, device="cpu", precision="float32", **options)  # type: ignore[arg-type]


def lightness_error(result: Image.Image, target: np.ndarray) -> float:
    """Largest difference of L*, by scikit-image, between a result and a target in [0, 1] or uint8."""
    wanted = rgb2lab(target if target.ndim == 3 else np.repeat(target[..., None], 3, axis=-1))[..., 0]
    return float(np.abs(rgb2lab(np.asarray(result.convert("RGB")))[..., 0] - wanted).max())


RED = Image.new("RGB", (40, 30), (200, 30, 30))
BLUE = Image.new("RGB", (30, 50), (20, 30, 220))


def photograph(size: tuple[int, int] = (200, 150)) -> Image.Image:
    return Image.fromarray(data.astronaut()).crop((100, 0, 400, 225)).resize(size)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 700), (900, 2), (15, 17), (64, 64), (200, 150), (301, 97)])
def test_any_size_comes_back_in_its_own_size_and_lightness(size: tuple[int, int]) -> None:
    target = photograph(size)
    result = fake(MeanColour(), size=64)(target, RED)
    assert (result.size, result.mode) == (size, "RGB")
    assert lightness_error(result, np.asarray(target)) < 0.7


def test_a_strip_five_thousand_pixels_long_works() -> None:
    assert fake(MeanColour())(Image.new("L", (1, 5000), 120), RED).size == (1, 5000)


def test_at_its_own_size_the_result_is_replaced_luminance() -> None:
    target, known = photograph((64, 64)), Image.fromarray(data.coffee()).resize((64, 64))
    result = np.asarray(fake(Known(known), size=64)(target, RED))
    rgb, out = (torch.from_numpy(np.array(i)).permute(2, 0, 1)[None] / 255 for i in (target, known))
    lab = torch.cat([color.rgb_to_lab(rgb)[:, :1], color.rgb_to_lab(out)[:, 1:]], dim=1)
    assert np.array_equal(result, (color.lab_to_rgb_in_gamut(lab) * 255).round()[0].permute(1, 2, 0).numpy())
    published = (color.replace_luminance(color.grey(rgb) * 2 - 1, out * 2 - 1) + 1) / 2
    free = color.lab_to_rgb(lab, clip=False)
    fits = ((free >= 0) & (free <= 1)).all(dim=1)[0].numpy()
    assert fits.mean() > 0.4
    assert np.abs(result - published[0].permute(1, 2, 0).numpy() * 255)[fits].max() < 1


@pytest.mark.parametrize("size", [32, 64, 512])
def test_lightness_is_the_targets_under_the_wildest_colours(size: int) -> None:
    target = photograph()
    wild = Image.fromarray(np.random.default_rng(0).integers(0, 2, (150, 200, 3), dtype=np.uint8) * 255)
    assert lightness_error(fake(Known(wild), size=size)(target, RED), np.asarray(target)) < 0.7


def test_sixteen_bit_grey_reaches_the_luminance_unrounded() -> None:
    values = np.linspace(0.0, 0.02, 200 * 16, dtype=np.float32).reshape(16, 200)  # 5 levels of 8 bits
    grey16 = Image.fromarray((values * 65535).round().astype(np.uint16))
    strip = rows_tensor(picture_from_pil(grey16), 0, 16)
    assert np.abs(strip[0, 0].numpy() - values).max() < 1 / 65535
    assert lightness_error(fake(MeanColour(), size=64)(grey16, RED), values) < 0.3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "RGBA", "I;16", "F"])
def test_every_mode_is_coloured(mode: str) -> None:
    grey = photograph((50, 40)).convert("L")
    if mode == "I;16":
        target = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        target = photograph((50, 40)).convert(mode) if mode in ("P", "CMYK", "RGBA") else grey.convert(mode)
    result = fake(MeanColour(), size=32)(target, RED)
    assert result.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    assert result.size == (50, 40)


def test_alpha_is_kept() -> None:
    target = photograph((50, 40))
    alpha = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    target.putalpha(Image.fromarray(alpha))
    result = fake(MeanColour(), size=32)(target, RED)
    assert np.array_equal(np.asarray(result)[..., 3], alpha)


def test_the_colour_is_the_references() -> None:
    target = Image.new("L", (60, 40), 120)
    red, blue = (
        np.asarray(fake(MeanColour(), size=32)(target, ref)).reshape(-1, 3).mean(axis=0) for ref in (RED, BLUE)
    )
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50


def test_a_reference_is_encoded_once_for_many_targets() -> None:
    coloriser = fake(MeanColour(), size=64)
    coloriser.set_reference(RED)
    for size in [(50, 40), (64, 64), (30, 90)]:
        coloriser.colorize(photograph(size))
    coloriser.colorize_many([photograph(), photograph()])
    assert len(coloriser.network.encoded) == 1


def test_a_reference_given_once_does_not_replace_the_one_set() -> None:
    coloriser = fake(MeanColour(), size=32)
    coloriser.set_reference(RED)
    before = coloriser.colorize(photograph()).tobytes()
    assert coloriser(photograph(), BLUE).tobytes() != before
    assert coloriser.colorize(photograph()).tobytes() == before


def test_without_a_reference_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="set_reference"):
        fake(MeanColour()).colorize(photograph())


def test_a_batch_gives_what_single_pictures_give_in_their_order() -> None:
    targets = [photograph(size) for size in [(200, 150), (50, 90), (100, 75), (7, 3), (90, 50)]]
    references = [RED, BLUE, BLUE, RED, RED]
    coloriser = fake(MeanColour(), size=64)
    results = coloriser.colorize_many(targets, references)
    assert coloriser.network.targets[0][0] == 1  # references of different shapes do not mix
    for target, reference, result in zip(targets, references, results, strict=True):
        assert result.tobytes() == coloriser(target, reference).tobytes()
    coloriser.network.targets.clear()
    coloriser.set_reference(RED)
    shared = coloriser.colorize_many(targets)
    assert sorted(shape[0] for shape in coloriser.network.targets) == [
        1,
        1,
        1,
        2,
    ]  # 200×150 and 100×75 together
    for target, result in zip(targets, shared, strict=True):
        assert result.tobytes() == coloriser.colorize(target).tobytes()


def test_as_many_references_as_targets_are_needed() -> None:
    with pytest.raises(ValueError, match="2 targets need as many references, not 1"):
        fake(MeanColour()).colorize_many([RED, RED], [BLUE])


def test_the_network_given_is_not_changed() -> None:
    network = MeanColour().train()
    fake(network)(photograph(), RED)
    assert network.training
    assert not network.targets


def test_a_result_that_is_not_finite_names_the_way_out() -> None:
    network = MeanColour()
    network.scale.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"not finite in bfloat16; try --precision float32"):
        Colorizer(network, device="cpu", precision="bfloat16", size=32)(photograph(), RED)
    with pytest.raises(UserError, match="not finite in float32; the weights"):
        fake(network, size=32)(photograph(), RED)


def test_options_that_do_not_exist_are_refused_in_one_sentence() -> None:
    for device in ("cuda:99", "nonsense", "meta:x"):
        with pytest.raises(UserError, match=f"device {device} is not available; use auto or one of cpu"):
            Colorizer(MeanColour(), device=device)
    with pytest.raises(UserError, match="precision float8 is not known; use auto, float32 or bfloat16"):
        Colorizer(MeanColour(), precision="float8")
    with pytest.raises(UserError, match="size 8 is too small"):
        Colorizer(MeanColour(), size=8)
    with pytest.raises(UserError, match="size full is not known; use native or a number"):
        Colorizer(MeanColour(), size="full")


@pytest.mark.parametrize("size", [(64, 48), (70, 45), (7, 200), (301, 133)])
def test_at_native_size_the_network_sees_each_picture_at_its_own(size: tuple[int, int]) -> None:
    network = MeanColour()
    coloriser = fake(network, size="native")
    result = coloriser(photograph(size), photograph((90, 35)))
    assert result.size == size
    seen = [side for shape in (coloriser.network.targets[0], coloriser.network.encoded[0]) for side in shape[:1:-1]]
    for side, own in zip(seen, (*size, 90, 35), strict=True):
        assert side % 16 == 0
        assert abs(side - own) <= 8 or side == 16
    assert lightness_error(result, np.asarray(photograph(size))) < 0.7


def test_too_small_a_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    coloriser = fake(MeanColour(), size="native")
    for failure in (torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")):

        def fail(*_: object, failure: Exception = failure) -> None:
            raise failure

        monkeypatch.setattr(coloriser.network, "forward", fail)
        with pytest.raises(
            UserError, match=r"memory of cpu is too small for --size native \(64×48 pixels\) in batches of 1"
        ):
            coloriser(photograph((64, 48)), RED)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_pictures_and_its_code_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is restored
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path))
    keep_compiled_code()
    expected = fake(MeanColour(), size=64)(photograph(), RED)
    coloriser = fake(MeanColour(), size=64, compile=True)
    assert np.abs(np.asarray(coloriser(photograph(), RED), np.int16) - np.asarray(expected)).max() <= 1
    assert any(file.is_file() for file in (tmp_path / "compiled").rglob("*"))
    coloriser.set_reference(RED)
    assert np.abs(np.asarray(coloriser.colorize(photograph()), np.int16) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_precision_is_the_one_chosen_for_the_device(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colorizer, "choose_precision", lambda precision, device: dtype)
    assert Colorizer(MeanColour(), device="cpu").dtype is dtype


@pytest.mark.slow
def test_the_network_itself_colours_in_both_precisions() -> None:
    network = PDNLA(channel=4)
    results = []
    for precision in ("float32", "bfloat16"):
        coloriser = Colorizer(network, device="cpu", precision=precision, size=64)
        coloriser.set_reference(photograph((90, 60)))
        results.append(coloriser.colorize(photograph((50, 70))))
        assert lightness_error(results[-1], np.asarray(photograph((50, 70)))) < 0.7
        again = coloriser(photograph((50, 70)), photograph((90, 60)))
        assert np.abs(np.asarray(again).astype(int) - np.asarray(results[-1])).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["pdnla_tiny", "pdnla_semantic", "default"])
def test_photographs_in_bfloat16_are_those_in_float32_within_two_levels(weights: str) -> None:
    pictures = {name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee")}
    exact, rounded = (Colorizer(weights, "cpu", precision, size=256) for precision in ("float32", "bfloat16"))
    for target, reference in [("coffee", "chelsea"), ("astronaut", "coffee"), ("chelsea", "astronaut")]:
        results = [each(pictures[target], pictures[reference]) for each in (exact, rounded)]
        assert np.ptp(np.asarray(results[0]), axis=-1).max() > 40
        difference = np.abs(np.subtract(*(np.asarray(result, np.int16) for result in results)))
        assert difference.max() <= 2


def two_regions(side: int = 240) -> Image.Image:
    """Light red above, dark blue below a slanting edge."""
    y, x = np.mgrid[:side, :side]
    above = (y + 0.3 * x < 0.62 * side)[..., None]
    lab = np.where(above, [70.0, 40.0, 30.0], [40.0, -10.0, -40.0])
    return Image.fromarray((lab2rgb(lab) * 255).round().astype(np.uint8))


@pytest.mark.parametrize("factor", [2, 3.75, 5])
def test_colours_do_not_bleed_over_an_edge(factor: float) -> None:
    truth = two_regions()
    result = fake(Known(truth), size=round(240 / factor / 16) * 16)(truth, RED)
    error = np.linalg.norm(rgb2lab(np.asarray(result)) - rgb2lab(np.asarray(truth)), axis=-1)
    assert (error > 20).mean() < 0.001
    assert (error > 8).sum(axis=0).max() <= 4  # pixels across the edge
    assert np.abs(error[:, [0, -1]]).max() < 25  # and no grey borders
    assert error[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 1


def test_the_result_does_not_depend_on_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for pixels in (1, 1000, 1 << 20):
        monkeypatch.setattr(colorizer, "STRIP_PIXELS", pixels)
        results.append(np.asarray(fake(Known(photograph()), size=48)(photograph(), RED)).astype(int))
    assert np.abs(results[0] - results[2]).max() <= 1  # vector instructions may round another way
    assert np.abs(results[1] - results[2]).max() <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights or limits")
@pytest.mark.slow
def test_a_large_scan_is_coloured_in_bounded_memory() -> None:
    script = """
        import resource
        import sys
        sys.path.insert(0, sys.argv[1])
        import torch
        from PIL import Image
        from test_colorizer import RED, MeanColour, fake
        torch.set_num_threads(1)
        coloriser = fake(MeanColour(), size=128)
        coloriser(Image.new("RGB", (64, 64)), RED)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        coloriser(Image.linear_gradient("L").resize((2500, 2500)).convert("RGB"), RED)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 2500**2)
    """
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), folder], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 16  # bytes a pixel: the target and its result, 4 each, and passing copies


class Vivid(MeanColour):
    """A network that has chroma: the same everywhere, far outside sRGB at most luminances."""

    def chroma(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Tensor:
        self.targets.append(tuple(target.shape))
        return torch.tensor([60.0, 90.0]).view(1, 2, 1, 1).expand(len(target), 2, *target.shape[2:])

    def forward(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Colours:
        pytest.fail("made RGB of what has chroma")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_chroma_of_a_network_that_has_it_is_taken_as_it_is(precision: str) -> None:
    target = Image.linear_gradient("L").resize((64, 64))
    result = Colorizer(Vivid(), device="cpu", precision=precision, size=32)(target, RED)
    grey = color.rgb_to_lab(rows_tensor(picture_from_pil(target), 0, 64))[:, :1]
    wanted = torch.cat([grey, torch.tensor([60.0, 90.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)], dim=1)
    expected = (color.lab_to_rgb_in_gamut(wanted) * 255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(result) - expected).max() <= 1
    assert lightness_error(result, np.asarray(target)) < 0.7


def test_in_gamut_a_network_with_chroma_gives_what_its_rgb_gives() -> None:
    class Mild(Vivid):
        def chroma(self, target: Tensor, reference: Tensor | tuple[Tensor]) -> Tensor:
            return color.rgb_to_lab((MeanColour.forward(self, target, reference).out + 1) / 2)[:, 1:]

    target, reference = photograph(), Image.new("RGB", (16, 16), (120, 100, 90))
    results = [np.asarray(fake(network, size=64)(target, reference), np.int16) for network in (Mild(), MeanColour())]
    assert np.array_equal(*results)


def test_a_colorizer_leaves_the_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda *_: pytest.fail("changed how memory is allocated"))
    before = dict(os.environ)
    fake(MeanColour(), size=32)(photograph((20, 20)), RED)
    assert dict(os.environ) == before


def test_the_plain_network_colours_alike() -> None:
    torch.manual_seed(0)
    net = PDNLA(4)
    target, reference = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)) for seed in (0, 1)
    )
    fast, plain = (
        np.asarray(Colorizer(net, "cpu", "float32", 48, accelerate=accelerate)(target, reference), dtype=int)
        for accelerate in (True, False)
    )
    assert np.abs(fast - plain).max() <= 1
    assert type(net) is PDNLA

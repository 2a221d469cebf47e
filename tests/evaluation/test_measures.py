"""Each measure on a case known by hand."""

import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
import yaml
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from pdnla import UserError
from pdnla.evaluation import frechet, perceptual
from pdnla.evaluation.downloads import available
from pdnla.evaluation.film import motion_flicker
from pdnla.evaluation.frechet import Moments, frechet_distance
from pdnla.evaluation.measures import (
    MEASURES,
    OBJECTIVE,
    best,
    compared_in_sweeps,
    logged,
    measured,
    resolve,
    summarise,
)
from pdnla.evaluation.metrics import (
    chroma_error_over_grey,
    ciede2000,
    colour_distribution_change,
    flicker,
    luminance_error,
    opposite_hue,
    placement_error,
    psnr,
    ssim,
)
from pdnla.evaluation.perceptual import perceptual_distance
from pdnla.evaluation.scoring import Scorer
from pdnla.images import color
from pdnla.images.color import grey

CONF = Path(__file__).parents[2] / "conf"


def picture(lightness: float | Tensor, a: float | Tensor, b: float | Tensor, side: int = 8) -> Tensor:
    parts = [torch.as_tensor(x).expand(side, side) for x in (lightness, a, b)]
    return color.lab_to_rgb(torch.stack(parts).unsqueeze(0).double())


def noise(seed: int, side: int = 64) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_every_measure_has_its_function_and_its_stand_in() -> None:
    for name, measure in MEASURES.items():
        assert name == measure.name
        assert callable(resolve(measure.function)), name
        assert measure.weights is None or callable(resolve(measure.weights)), name
        assert measure.stand_in is None or measure.stand_in in MEASURES
        assert "validation" not in measure.where or measure.summary != "median", name


def test_validations_sweeps_and_searches_agree_on_the_table() -> None:
    assert compared_in_sweeps() == ("val/chroma_error", "val/chroma_error_ratio", "val/psnr")
    assert set(compared_in_sweeps()) <= {logged(measure.name) for measure in measured("validation", "truth")}
    search = yaml.safe_load((CONF / "hparams_search" / "optuna.yaml").read_text())
    assert (search["hydra"]["sweeper"]["direction"] == "maximize") is (MEASURES[OBJECTIVE].better == "up")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pdnla.evaluation.measures", "torch"),
        ("pdnla.evaluation.runner", "torchvision"),  # which imports torch's compiler
        ("pdnla.data.preparing", "torch"),  # in every process of pdnla-prepare
    ],
)
def test_commands_import_no_more_than_they_need(module: str, unwanted: str) -> None:
    code = f"import sys, {module}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_psnr_and_ssim_are_those_of_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.interpolate(torch.rand(2, 3, 5, 5, generator=generator), (33, 50), mode="bilinear")
    result = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    expected = peak_signal_noise_ratio(result, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert psnr(result, truth).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    expected = structural_similarity_index_measure(result, truth, data_range=1.0, reduction="none")
    assert ssim(result, truth).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_luminance_error_is_the_mean_distance_of_lightness() -> None:
    assert float(luminance_error(picture(53.0, 20.0, 5.0), picture(50.0, 0.0, 0.0))) == pytest.approx(3, abs=1e-3)


def test_placement_leaves_out_a_cast_and_keeps_wrong_places() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(8, generator=generator) * 30 - 15 for _ in range(2))
    truth = picture(50.0, a, b)
    cast = picture(50.0, 0.5 * a + 0.1 * b + 6, 0.6 * b - 4)
    assert float(ciede2000(cast, truth)) > 5
    assert float(placement_error(cast, truth)) == pytest.approx(0, abs=0.05)
    uniform = picture(50.0, 9.0, -9.0)
    assert float(placement_error(uniform, truth)) == pytest.approx(
        float(ciede2000(picture(50.0, float(a.mean()), float(b.mean())), truth)), abs=0.01
    )
    assert float(placement_error(picture(50.0, a.roll(1), b.roll(1)), truth)) > 3


def test_placement_of_a_grey_picture_is_that_of_the_truths_mean_chroma() -> None:
    photograph = torch.from_numpy(skimage.data.coffee()[::4, ::4].copy()).movedim(-1, 0)[None].float() / 255
    lab = rgb2lab(photograph[0].movedim(0, -1).numpy())
    uniform = lab.copy()
    uniform[..., 1:] = lab[..., 1:].mean(axis=(0, 1))
    expected = deltaE_ciede2000(uniform, lab).mean()
    for plain in (grey(photograph), (grey(photograph) * 255).round() / 255):
        assert float(placement_error(plain, photograph)) == pytest.approx(expected, abs=0.01)


def test_chroma_error_over_greys_is_one_for_grey_and_two_for_the_opposite() -> None:
    truth = picture(50.0, 9.0, 12.0)
    assert float(chroma_error_over_grey(truth, truth)) == pytest.approx(0, abs=1e-6)
    assert float(chroma_error_over_grey(picture(50.0, 0.0, 0.0), truth)) == pytest.approx(1, abs=1e-3)
    assert float(chroma_error_over_grey(picture(50.0, -9.0, -12.0), truth)) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize(
    ("ours", "truth", "opposite"),
    [
        ((-20.0, 0.0), (20.0, 0.0), True),
        ((-1.0, 20.0), (20.0, 0.0), True),  # 93 degrees
        ((1.0, 20.0), (20.0, 0.0), False),  # 87 degrees
        ((-7.0, 0.0), (20.0, 0.0), False),  # ours is hardly coloured
        ((-20.0, 0.0), (7.0, 0.0), False),  # the truth is hardly coloured
        ((0.0, 0.0), (20.0, 0.0), False),
    ],
)
def test_hues_are_opposite_beyond_a_right_angle_where_both_are_coloured(
    ours: tuple[float, float], truth: tuple[float, float], opposite: bool
) -> None:
    left = torch.arange(8) < 2
    halves = [torch.where(left, ours[axis], truth[axis]) for axis in (0, 1)]
    assert float(opposite_hue(picture(50.0, *halves), picture(50.0, *truth))) == (25.0 if opposite else 0.0)


def test_a_region_is_measured_alone(scorer: Scorer) -> None:
    left = torch.arange(64) < 16
    truth = scorer.view(picture(50.0, 20.0, 0.0, side=64).float())
    result = scorer.view(picture(50.0, torch.where(left, 20.0, -20.0), 0.0, side=64).float())
    regions = {"shown": left.expand(64, 64), "missing": ~left.expand(64, 64), "skin": torch.zeros(64, 64).bool()}
    figures = scorer.figures(result, truth, truth, truth, regions)
    assert figures["ciede2000_shown"] == pytest.approx(0, abs=1e-3)
    assert figures["ciede2000_missing"] == pytest.approx(figures["ciede2000"] * 4 / 3, rel=1e-4)
    assert figures["chroma_error_over_grey_missing"] == pytest.approx(2, abs=1e-2)
    assert figures["opposite_hue_missing"] == 100
    assert figures["opposite_hue"] == 75
    assert "ciede2000_skin" not in figures  # an empty region
    assert not {"ciede2000_shown", "ciede2000_missing"} & set(scorer.figures(result, truth, truth, truth))


def test_skin_without_its_light_leaves_out_a_cast_of_the_oval_alone(scorer: Scorer) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(64, generator=generator) * 8 + 8 for _ in range(2))
    skin = (torch.arange(64) < 24).expand(64, 64)
    truth = scorer.view(picture(60.0, a, b, side=64).float())
    other = [torch.where(torch.arange(64) < 24, x + shift, -x) for x, shift in ((a, 5.0), (b, -6.0))]
    figures = scorer.figures(scorer.view(picture(60.0, *other, side=64).float()), truth, truth, truth, {"skin": skin})
    assert figures["ciede2000_skin"] > 3
    assert figures["placement_error_skin"] == pytest.approx(0, abs=0.05)
    assert figures["placement_error"] > 1


def test_perceptual_distance_is_that_of_unit_vectors() -> None:
    x, y = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 5.0]).view(1, 2, 1, 1)
    assert float(perceptual_distance([x], [x])) == 0
    assert float(perceptual_distance([x], [y])) == pytest.approx(2)
    assert float(perceptual_distance([x, x], [y, x])) == pytest.approx(1)


def test_flicker_is_the_change_of_chroma_where_luminance_stays() -> None:
    left = torch.arange(8) < 4
    before = picture(50.0, 10.0, 10.0)
    after = picture(50.0, torch.where(left, 13.0, 60.0), torch.where(left, 14.0, 60.0))
    still, moving = picture(50.0, 0.0, 0.0), picture(torch.where(left, 50.0, 60.0), 0.0, 0.0)
    assert flicker(after, before, moving, still) == pytest.approx(5, abs=0.01)
    assert flicker(before, before, moving, still) == pytest.approx(0, abs=1e-6)
    assert math.isnan(flicker(after, before, picture(80.0, 0.0, 0.0), still))  # nothing stays
    assert math.isnan(flicker(after, picture(50.0, 0.0, 0.0, side=9), moving, still))


def moments(vectors: Tensor) -> Moments:
    total = Moments.of(vectors[0])
    for vector in vectors[1:]:
        total = total + Moments.of(vector)
    return total


def test_frechet_distance_is_that_of_normal_distributions() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double()
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov()).T)  # mean 0 and covariance 1, exactly
    assert frechet_distance(moments(x), moments(x)) == pytest.approx(0, abs=1e-6)
    shifted = moments(x + torch.tensor([3.0, 0.0, 4.0]))
    assert frechet_distance(moments(x), shifted) == pytest.approx(25, abs=1e-4)
    wider = moments(3 * x)
    assert frechet_distance(moments(x), wider) == pytest.approx(3 * (3 - 1) ** 2, abs=1e-4)
    assert frechet_distance(Moments.of(x[0]), wider) is None


def test_frechet_distance_is_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    chance = torch.Generator().manual_seed(1)
    x, y = (
        torch.randn(60, 20, generator=chance).double() @ torch.rand(20, 20, generator=chance).double() for _ in "xy"
    )
    features = torch.nn.Identity()
    features.num_features = 20  # type: ignore[assignment]
    theirs = FrechetInceptionDistance(features)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_a_result_that_is_the_truth_is_best_by_every_measure(scorer: Scorer) -> None:
    truth, other = scorer.view(noise(0)), scorer.view(noise(1))
    reference = scorer.view(noise(0).flip(-1))
    same = scorer.figures(truth, truth, reference, truth)
    different = scorer.figures(other, truth, reference, truth)
    assert "psnr" not in same  # infinite
    assert same["ciede2000"] == same["chroma_error"] == same["lpd_efficientnet"] == same["luminance_error"] == 0
    assert same["ssim"] == pytest.approx(1)
    assert same["his"] == pytest.approx(1)
    assert same["colourfulness_ratio"] == pytest.approx(1)
    assert set(different) == {*same, "psnr"}
    for name, value in same.items():
        assert MEASURES[name].badness(value) < MEASURES[name].badness(different[name]), name


def test_without_a_truth_or_colours_in_the_reference_their_measures_are_missing(scorer: Scorer) -> None:
    grey = scorer.view(color.grey(noise(0)))
    coloured = scorer.view(noise(1))
    actual = scorer.figures(coloured, coloured, grey, None)
    assert set(actual) == {"his", "contextual", "luminance_error"} | ({"colourfulness_ratio"} & set(actual))
    exactly = scorer.view(torch.full((1, 3, 64, 64), 0.5))
    assert "colourfulness_ratio" not in scorer.figures(grey, coloured, exactly, None)


def test_large_pictures_are_judged_at_a_bounded_size(scorer: Scorer) -> None:
    observed = scorer.view(torch.rand(1, 3, 300, 1000))
    assert observed.picture.shape[2:] == (300, 1000)
    assert observed.features[0].shape[2] * observed.features[0].shape[3] * 16 < 1.1 * scorer.side**2


def test_means_are_of_the_pictures_that_have_the_measure() -> None:
    assert summarise([{"psnr": 20.0, "his": 0.5}, {"his": 1.0}, {}]) == {"psnr": 20.0, "his": 0.75}


def test_a_median_is_not_moved_by_one_picture() -> None:
    figures = [{"chroma_error_over_grey": value, "chroma_error": value} for value in (1.0, 2.0, 30.0)]
    assert summarise(figures) == {"chroma_error_over_grey": 2.0, "chroma_error": 11.0}


def test_the_best_are_told_apart_only_as_far_as_they_are_printed() -> None:
    assert best("psnr", {"a": 30.001, "b": 30.003, "c": 29.0}) == ["a", "b"]
    assert best("ciede2000", {"a": 3.0, "b": 2.0}) == ["b"]
    assert best("colourfulness_ratio", {"a": 0.9, "b": 1.2}) == ["a"]
    assert best("psnr", {}) == []


def test_weights_that_cannot_be_had_are_done_without_or_asked_for_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable() -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(perceptual, "load_lpips", unreachable)
    monkeypatch.setattr(frechet, "load_inception", unreachable)
    with caplog.at_level(logging.INFO):
        assert available({"lpips": "auto", "fid": False}) == frozenset()
    assert "no weights for lpips: lpd_efficientnet is measured instead (no route to host)" in caplog.text
    with pytest.raises(UserError, match=r"measures.fid=true: its weights are not available \(no route to host\)"):
        available({"fid": True})
    with pytest.raises(UserError, match=r"measures.lpips=maybe: must be auto, true or false"):
        available({"lpips": "maybe"})
    with pytest.raises(
        UserError, match=r"measures.psnr: is not a measure with weights of its own; choose from lpips, fid"
    ):
        available({"psnr": True})


def test_lpips_is_measured_where_its_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untrained(torch.nn.Module):
        def forward(self, result: Tensor, truth: Tensor) -> Tensor:
            return (result - truth).abs().mean()

        def reset(self) -> None: ...

    monkeypatch.setattr(perceptual, "load_lpips", Untrained)
    assert available({"lpips": True}) == {"lpips"}
    scorer = Scorer(torch.device("cpu"), {"lpips"})
    view = scorer.view(noise(0))
    figures = scorer.figures(view, view, view, view)
    assert figures["lpips"] == 0
    assert "lpd_efficientnet" not in figures


def test_histograms_that_stay_have_no_change_and_disjoint_ones_the_largest() -> None:
    """The Jensen-Shannon divergence of disjoint histograms is ln 2."""
    red, blue = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert colour_distribution_change(red, [red] * 4) == 0
    assert colour_distribution_change(red, [blue] * 4) == pytest.approx(1000 * math.log(2))
    assert colour_distribution_change(red, [red, blue, blue, red]) == pytest.approx(1000 * math.log(2) / 3)
    assert math.isnan(colour_distribution_change(red, [red] * 3))


def test_flicker_along_motion_follows_what_moves() -> None:
    """A pan over a coloured photograph has none where it is followed, and has it where colours change on the way."""
    scene = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None, :, 50:220, 50:330].float() / 255
    before, after = scene[..., :160, 8:264], scene[..., 4:164, 12:268]
    greys = [color.grey(x) for x in (after, before)]
    followed = motion_flicker(after, before, *greys)
    assert followed < 0.5 * flicker(after, before, *greys)
    lab = color.rgb_to_lab(after)
    lab[:, 1] += 10
    assert motion_flicker(color.lab_to_rgb(lab), before, *greys) > followed + 4
    assert math.isnan(motion_flicker(after, before[..., :-1], *greys))


def test_distances_from_the_reference_have_measures_of_their_own(scorer: Scorer) -> None:
    result, truth = picture(50.0, 10.0, 0.0, 32).float(), picture(50.0, 20.0, 0.0, 32).float()
    views = [scorer.view(x) for x in (result, color.grey(result), truth, truth)]
    for distance, name in ((1, "ciede2000_1"), (12, "ciede2000_1"), (13, "ciede2000_13"), (300, "ciede2000_49")):
        figures = scorer.figures(*views, distance=distance)
        own = [key for key in figures if key.startswith("ciede2000_") and key[-1].isdigit()]
        assert own == [name]
        assert figures[name] == figures["ciede2000"]
    assert not any(key.startswith("ciede2000_1") for key in scorer.figures(*views))

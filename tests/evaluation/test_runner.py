"""An evaluation's figures: the same twice, the same in two processes, and reported as they come."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pdnla import UserError
from pdnla.evaluation.measures import MEASURES, Measure
from pdnla.evaluation.methods import BASELINE_NAMES, check_baselines, load_methods, name_weights
from pdnla.evaluation.protocols import Case, Clips, GivenPairs, Protocol, WarpedPairs
from pdnla.evaluation.results import Evaluation, kept
from pdnla.evaluation.runner import Settings, evaluate

PAIRED = {
    "psnr",
    "ssim",
    "ciede2000",
    "placement_error",
    "chroma_error",
    "chroma_error_over_grey",
    "opposite_hue",
    "lpd_efficientnet",
}
UNPAIRED = {"his", "colourfulness_ratio", "contextual", "luminance_error"}


def run(protocol: Protocol, settings: Settings, folder: Path) -> Evaluation:
    return evaluate({"it": protocol}, settings, 1, folder, lambda done: None)["it"]


def assert_same(one: Evaluation, other: Evaluation) -> None:
    assert one.methods == other.methods
    assert one.left_out == other.left_out
    assert [record.name for record in one.records] == [record.name for record in other.records]
    for first, second in zip(one.records, other.records, strict=True):
        for method, figures in first.figures.items():
            assert second.figures[method] == pytest.approx(figures, rel=1e-5), (first.name, method)
    for method, averages in one.summary.items():
        assert other.summary[method] == pytest.approx(averages, rel=1e-4), method


def test_every_method_has_every_measure_and_what_cannot_be_used_is_named(evaluated: Any) -> None:
    actual: Evaluation = evaluated.evaluation
    assert evaluated.progress == [1, 2, 3, 4, 5]
    assert actual.methods == {"net": "weights", "grey": "baseline", "luminance_rank": "baseline", "truth": "truth"}
    assert list(actual.methods) == ["net", "grey", "luminance_rank", "truth"]
    assert [record.name for record in actual.records] == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert len(actual.left_out) == 2
    assert "broken.png: is not an image" in actual.left_out[0]
    assert "grey.png: is grey" in actual.left_out[1]
    for method in ("net", "grey", "luminance_rank"):
        assert set(actual.summary[method]) == PAIRED | UNPAIRED | {"frechet_efficientnet"}
        assert all(set(record.figures[method]) == PAIRED | UNPAIRED for record in actual.records)
        assert actual.summary[method]["luminance_error"] < 0.3
    assert set(actual.summary["truth"]) == UNPAIRED
    assert actual.summary["grey"]["colourfulness_ratio"] == 0
    assert actual.summary["luminance_rank"]["psnr"] > actual.summary["grey"]["psnr"]


def test_pictures_are_kept_small_for_the_report(evaluated: Any) -> None:
    paths = list((evaluated.folder / "pairs").iterdir())
    records = evaluated.evaluation.records
    assert len(paths) == len(records) * (2 + 4)
    assert records[0].columns == ("target", "reference", "net", "grey", "luminance_rank", "truth")
    assert all(max(Image.open(path).size) == 16 for path in paths)


def test_weights_with_the_name_of_a_baseline_are_listed_first_as_weights(
    clip: Path, settings: Settings, tmp_path: Path
) -> None:
    named = settings._replace(weights={"semantic_warp": "semantic_warp"}, baselines=("grey", "semantic_warp"), size=32)
    once = run(Clips(clip, count=3), named, tmp_path)
    assert list(once.methods.items())[:2] == [("semantic_warp", "weights"), ("grey", "baseline")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of a coloured ramp: luminance stays, chroma changes by 6 from frame to frame."""
    from pdnla.images import color

    folder = tmp_path_factory.mktemp("clip")
    lightness = torch.linspace(40, 60, 32).expand(32, 32)
    for number in range(5):
        lab = torch.stack([lightness, torch.full_like(lightness, 6.0 * number), torch.full_like(lightness, 10.0)])
        rgb = color.lab_to_rgb(lab).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return folder


def test_flicker_is_that_of_the_frames(clip: Path, settings: Settings, tmp_path: Path) -> None:
    once = run(Clips(clip), settings._replace(weights={}), tmp_path)
    flickers = [record.figures["truth"].get("flicker") for record in once.records]
    assert flickers[0] is None
    assert flickers[1:] == pytest.approx([6, 6, 6], abs=0.3)
    assert once.summary["grey"]["flicker"] == pytest.approx(0, abs=0.01)


@pytest.mark.slow
def test_clips_are_coloured_as_film_too_beside_single_frames_and_plain_flow(tmp_path: Path, settings: Settings) -> None:
    """A pan: the colours of its first frame come along, with a known distance from it."""
    from skimage import data

    for clip, count in (("one", 7), ("two", 4)):
        (tmp_path / clip).mkdir()
        for number in range(count):
            frame = data.astronaut()[40:120, 60 + 3 * number : 156 + 3 * number]
            Image.fromarray(frame).save(tmp_path / clip / f"{number}.png")
    (tmp_path / "two" / "2.png").write_bytes(b"no picture")
    clips = Clips([tmp_path / "one", tmp_path / "two"])
    assert clips.starts == [0, 6]
    methods = settings._replace(size=64, baselines=("semantic_warp",), film=True)
    once = evaluate({"clips": clips}, methods, 1, tmp_path / "kept", lambda done: None)["clips"]
    assert once.methods == {
        "net": "weights",
        "net, film": "weights",
        "semantic_warp": "baseline",
        "semantic_warp, film": "baseline",
        "flow": "baseline",
        "truth": "truth",
    }
    film, alone, flow = (once.summary[name] for name in ("semantic_warp, film", "semantic_warp", "flow"))
    assert film["motion_flicker"] < alone["motion_flicker"]
    assert film["ciede2000_1"] < alone["ciede2000_1"]
    assert flow["ciede2000_1"] < 5
    assert {"cdc", "motion_flicker"} <= set(once.summary["truth"])
    assert len(once.records) == 6 + 2
    assert len(once.left_out) == 1


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_the_figures_are_the_same_twice_and_in_two_processes(
    warped_pairs: WarpedPairs, clip: Path, settings: Settings, tmp_path: Path, evaluated: Any
) -> None:
    parts: Mapping[str, Protocol] = {"pairs": warped_pairs, "clip": Clips(clip)}
    once = evaluate(parts, settings, 1, tmp_path, lambda done: None)
    assert [record.figures for record in once["pairs"].records] == [r.figures for r in evaluated.evaluation.records]
    progress: list[int] = []
    together = evaluate(parts, settings, 2, tmp_path, progress.append)
    assert progress[-1] == 5 + 4
    assert_same(once["pairs"], together["pairs"])
    assert_same(once["clip"], together["clip"])
    assert not list(tmp_path.iterdir())


def test_published_results_are_measured_as_ours(album: Path, settings: Settings, tmp_path: Path) -> None:
    results = tmp_path / "published"
    results.mkdir()
    Image.open(album / "coffee.png").resize((144, 128)).save(results / "coffee.png")
    pairs = GivenPairs(album, album / "coffee.png", published=results)
    actual = run(pairs, settings._replace(weights={}), tmp_path / "kept")
    assert actual.methods == {"published": "published", "grey": "baseline", "luminance_rank": "baseline"}
    (own,) = [record.figures["published"] for record in actual.records if "published" in record.figures]
    assert set(own) == UNPAIRED
    assert own["his"] > 0.8
    assert own["colourfulness_ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_what_fails_is_one_sentence_from_any_process(
    processes: int, warped_pairs: WarpedPairs, settings: Settings, tmp_path: Path
) -> None:
    absent = settings._replace(weights={"net": str(tmp_path / "absent.ckpt")})
    with pytest.raises(UserError, match=r"absent.ckpt: there is no such weights file"):
        evaluate({"pairs": warped_pairs}, absent, processes, tmp_path, lambda done: None)


def test_all_baselines_run_by_their_names(album: Path, settings: Settings, tmp_path: Path) -> None:
    every = settings._replace(weights={}, baselines=BASELINE_NAMES)
    actual = run(WarpedPairs(album, size=32, count=1), every, tmp_path)
    assert list(actual.methods) == [*BASELINE_NAMES, "truth"]


def test_nothing_to_use_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    Image.new("L", (64, 64), 90).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"none of its 1 pictures can be used; the first: .*grey.png: is grey"):
        run(WarpedPairs(tmp_path), settings._replace(weights={}), tmp_path)


class Once:
    """A protocol of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Case:
        return self.case


def test_a_case_is_not_changed_by_being_coloured(warped_pairs: WarpedPairs, settings: Settings, tmp_path: Path) -> None:
    case = warped_pairs[0]
    assert case.truth is not None
    before = np.array(case.truth)
    run(Once(dataclasses.replace(case, given={"published": case.reference.rgb()})), settings, tmp_path)
    assert np.array_equal(before, np.asarray(case.truth))


def test_a_measure_is_one_entry_of_the_table(
    monkeypatch: pytest.MonkeyPatch, warped_pairs: WarpedPairs, settings: Settings, tmp_path: Path
) -> None:
    own = SimpleNamespace(redness=lambda result, truth: (result - truth)[:, 0].mean(dim=(1, 2)))
    monkeypatch.setitem(sys.modules, "a_researchers_module", own)
    entry = Measure("redness", "red", "one", 1, "truth", "a_researchers_module:redness", "a test", region="left")
    monkeypatch.setitem(MEASURES, "redness", entry)
    truth = Image.new("RGB", (32, 32), (51, 0, 0))
    truth.paste((204, 0, 0), (0, 0, 16, 32))
    region = np.arange(32)[None].repeat(32, axis=0) < 16
    case = dataclasses.replace(warped_pairs[0], truth=truth, given={"mine": Image.new("RGB", (32, 32), (255, 0, 0))})
    separate = settings._replace(weights={}, baselines=("grey",))
    actual = run(Once(dataclasses.replace(case, regions={"left": region})), separate._replace(side=32), tmp_path)
    assert actual.records[0].columns[-1] == "left"
    shown = np.asarray(Image.open(kept(tmp_path / "it", 0, len(actual.records[0].columns) - 1)), dtype=int)
    assert abs(shown[16, 4, 0] - 204) < 8  # the region as it is,
    assert abs(shown[16, 28, 0] - 51 // 4) < 8  # and the rest dark
    assert actual.summary["mine"]["redness"] == pytest.approx(0.2)
    assert "redness" in actual.measures
    assert "redness" not in run(Once(case), separate, tmp_path).measures  # without the region


def test_weights_are_called_by_their_files() -> None:
    assert name_weights(None) == {}
    assert name_weights("runs/a/last.ckpt") == {"last": "runs/a/last.ckpt"}
    assert name_weights(["a/last.ckpt", "b/last.ckpt", "c.pt"]) == {
        "a/last": "a/last.ckpt",
        "b/last": "b/last.ckpt",
        "c": "c.pt",
    }
    assert name_weights({"mine": "a.ckpt"}) == {"mine": "a.ckpt"}
    with pytest.raises(UserError, match="two files have the same name and folder"):
        name_weights(["a/last.ckpt", "a/last.safetensors"])
    assert name_weights("semantic_warp") == {"semantic_warp": "semantic_warp"}
    methods = load_methods(name_weights("semantic_warp"), ["grey", "semantic_warp"], 64, torch.device("cpu"), "float32")
    assert list(methods) == ["semantic_warp", "grey"]
    with pytest.raises(UserError, match="semantic_warp is the name of another method"):
        name_weights("runs/semantic_warp.ckpt")
    with pytest.raises(UserError, match="truth is the name of another method"):
        name_weights("truth.ckpt")
    with pytest.raises(UserError, match="baselines: nearest is not known; choose from grey, mean_chroma"):
        check_baselines(["grey", "nearest"])
    with pytest.raises(UserError, match="one is named twice"):
        check_baselines(["grey", "grey"])

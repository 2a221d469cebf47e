"""An evaluation's figures: the same twice, the same in two processes, and told about as they come."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from pdnla import PDNLA, UserError
from pdnla.evaluation.methods import BASELINE_NAMES, check_baselines, name_weights
from pdnla.evaluation.protocols import Case, Clips, GivenPairs, PseudoPairs
from pdnla.evaluation.running import Evaluation, Settings, evaluate
from pdnla.weights import save_weights

PAIRED = {"psnr", "ssim", "ciede2000", "chroma_error", "lpd_efficientnet"}
UNPAIRED = {"his", "colourfulness_ratio", "contextual", "luminance_error"}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, a grey picture and a broken one."""
    folder = tmp_path_factory.mktemp("album")
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).resize((72, 64)).save(folder / f"{name}.png")
    Image.new("L", (64, 64), 90).save(folder / "grey.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(0)
    save_weights(PDNLA(4), file, "a test")
    return Settings({"net": str(file)}, ("grey", "luminance_rank"), size=48, device="cpu", precision="float32", side=0)


def run(protocol: object, settings: Settings, folder: Path, processes: int = 1) -> Evaluation:
    return evaluate(protocol, settings, processes, folder, lambda done: None)  # type: ignore[arg-type]


def same(one: Evaluation, other: Evaluation) -> None:
    assert one.methods == other.methods
    assert one.left_out == other.left_out
    assert [record.name for record in one.records] == [record.name for record in other.records]
    for first, second in zip(one.records, other.records, strict=True):
        for method, figures in first.figures.items():
            assert second.figures[method] == pytest.approx(figures, rel=1e-5), (first.name, method)
    for method, averages in one.means.items():
        assert other.means[method] == pytest.approx(averages, rel=1e-4), method


def test_every_method_has_every_measure_and_what_cannot_be_used_is_named(
    album: Path, settings: Settings, tmp_path: Path
) -> None:
    done: list[int] = []
    found = evaluate(PseudoPairs(album, size=48), settings, 1, tmp_path, done.append)
    assert done == [1, 2, 3, 4, 5]
    assert found.methods == {"net": "weights", "grey": "baseline", "luminance_rank": "baseline", "truth": "truth"}
    assert [record.name for record in found.records] == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert len(found.left_out) == 2
    assert "broken.png: is not an image" in found.left_out[0]
    assert "grey.png: is grey" in found.left_out[1]
    for method in ("net", "grey", "luminance_rank"):
        assert set(found.means[method]) == PAIRED | UNPAIRED | {"frechet_efficientnet"}
        assert all(set(record.figures[method]) == PAIRED | UNPAIRED for record in found.records)
        assert found.means[method]["luminance_error"] < 0.3
    assert set(found.means["truth"]) == UNPAIRED
    assert found.means["grey"]["colourfulness_ratio"] == 0
    assert found.means["luminance_rank"]["psnr"] > found.means["grey"]["psnr"]
    assert not list(tmp_path.iterdir())


def test_the_figures_are_the_same_twice_and_in_two_processes(album: Path, settings: Settings, tmp_path: Path) -> None:
    pairs = PseudoPairs(album, size=48)
    once = run(pairs, settings, tmp_path)
    assert run(pairs, settings, tmp_path) == once
    done: list[int] = []
    together = evaluate(pairs, settings, 2, tmp_path, done.append)
    assert done[-1] == 5
    same(once, together)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of a coloured ramp: luminance stays, chroma changes by 6 from frame to frame."""
    from pdnla.images import color

    folder = tmp_path_factory.mktemp("clip")
    lightness = torch.linspace(40, 60, 64).expand(64, 64)
    for number in range(5):
        lab = torch.stack([lightness, torch.full_like(lightness, 6.0 * number), torch.full_like(lightness, 10.0)])
        rgb = color.lab_to_rgb(lab).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return folder


def test_flicker_is_measured_across_the_parts_of_two_processes(clip: Path, settings: Settings, tmp_path: Path) -> None:
    once = run(Clips(clip), settings, tmp_path)
    same(once, run(Clips(clip), settings, tmp_path, processes=2))
    flickers = [record.figures["truth"].get("flicker") for record in once.records]
    assert flickers[0] is None
    assert flickers[1:] == pytest.approx([6, 6, 6], abs=0.3)
    assert once.means["grey"]["flicker"] == pytest.approx(0, abs=0.01)


def test_published_results_are_measured_as_ours(album: Path, settings: Settings, tmp_path: Path) -> None:
    results = tmp_path / "published"
    results.mkdir()
    Image.open(album / "coffee.png").resize((144, 128)).save(results / "coffee.png")
    pairs = GivenPairs(album, album / "coffee.png", published=results)
    found = run(pairs, settings._replace(weights={}), tmp_path / "kept")
    assert found.methods == {"published": "published", "grey": "baseline", "luminance_rank": "baseline"}
    (own,) = [record.figures["published"] for record in found.records if "published" in record.figures]
    assert set(own) == UNPAIRED
    assert own["his"] > 0.8
    assert own["colourfulness_ratio"] == pytest.approx(1, abs=0.05)


def test_pictures_are_kept_small_for_the_report(album: Path, settings: Settings, tmp_path: Path) -> None:
    found = run(PseudoPairs(album, size=48), settings._replace(side=32), tmp_path / "kept")
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(names) == len(found.records) * (2 + 4)
    assert found.records[0].columns == ("target", "reference", "net", "grey", "luminance_rank", "truth")
    assert all(max(Image.open(tmp_path / "kept" / name).size) == 32 for name in names)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_fails_is_one_sentence_from_any_process(
    processes: int, album: Path, settings: Settings, tmp_path: Path
) -> None:
    absent = settings._replace(weights={"net": str(tmp_path / "absent.ckpt")})
    with pytest.raises(UserError, match=r"absent.ckpt: there is no such weights file"):
        run(PseudoPairs(album, size=48), absent, tmp_path, processes)


def test_all_baselines_run_by_their_names(album: Path, settings: Settings, tmp_path: Path) -> None:
    found = run(PseudoPairs(album, size=48, count=1), settings._replace(weights={}, baselines=BASELINE_NAMES), tmp_path)
    assert list(found.methods) == [*BASELINE_NAMES, "truth"]


def test_nothing_to_use_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    Image.new("L", (64, 64), 90).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"none of its 1 pictures can be used; the first: .*grey.png: is grey"):
        run(PseudoPairs(tmp_path), settings._replace(weights={}), tmp_path)


def test_a_case_is_not_changed_by_being_coloured(album: Path, settings: Settings, tmp_path: Path) -> None:
    case = PseudoPairs(album, size=48)[0]
    assert case.truth is not None
    before = np.array(case.truth)

    class Once:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Case:
            return dataclasses.replace(case, given={"published": case.reference.rgb()})

    run(Once(), settings, tmp_path)
    assert np.array_equal(before, np.asarray(case.truth))


def test_weights_are_called_by_their_files(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match="truth is the name of another method"):
        name_weights("truth.ckpt")
    with pytest.raises(UserError, match="baselines: nearest is not known; choose from grey, mean_chroma"):
        check_baselines(["grey", "nearest"])
    with pytest.raises(UserError, match="one is named twice"):
        check_baselines(["grey", "grey"])

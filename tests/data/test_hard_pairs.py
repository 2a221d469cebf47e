"""Hard pairs: what is replaced, joined and recoloured is so; pairs follow from the seed; people are told apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pdnla.data.hard_pairs import (
    MISSING,
    HardPairs,
    change_tone,
    degrade,
    join,
    other_light,
    recolour,
    replace_part,
    trim,
    view,
)
from pdnla.data.held_out import OTHERS, PEOPLE, is_held_out, person
from pdnla.errors import UserError
from pdnla.images import color


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = []
    for folder, hue in (("one", (200, 60, 40)), ("two", (40, 80, 200))):
        (tmp_path / folder).mkdir()
        for number in range(2):
            ramp = np.linspace(0.4, 1, 96)[None, :, None] * np.ones((64, 1, 1)) * np.array(hue)
            paths.append(tmp_path / folder / f"{number}.png")
            Image.fromarray((ramp - 10 * number).clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def nothing(target: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(target[:, :2])


def test_a_third_to_two_thirds_of_a_partial_reference_are_replaced() -> None:
    own, other = torch.zeros(3, 64, 96), torch.ones(3, 48, 48)
    for seed in range(20):
        part = replace_part(own, other, np.random.default_rng(seed)).mean()
        # The last rectangle may go beyond by at most its own area.
        assert MISSING[0] - 0.02 < part < MISSING[1] + 0.36


def test_joined_pictures_keep_both_and_about_the_size() -> None:
    for seed in range(8):
        both = join(torch.zeros(3, 256, 256), torch.ones(3, 200, 300), np.random.default_rng(seed))
        assert all(side % 16 == 0 for side in both.shape[-2:])
        assert 0.8 < both.shape[-1] * both.shape[-2] / 256**2 < 1.25
        assert 0.25 < both.mean() < 0.75


def test_toned_truths_keep_their_chroma_and_recoloured_pictures_their_lightness() -> None:
    truth = color.lab_to_rgb(torch.tensor([55.0, 12.0, -9.0]).view(3, 1, 1).expand(3, 32, 32))
    for seed in range(10):
        after = color.rgb_to_lab(change_tone(truth, np.random.default_rng(seed)))
        assert (after[1:].mean(dim=(1, 2)) - torch.tensor([12.0, -9.0])).abs().max() < 0.6
    grey = torch.full((3, 32, 32), 0.5)
    result = color.rgb_to_lab(recolour(grey, truth, lambda t, r: color.rgb_to_lab((r + 1) / 2)[:, 1:]))
    torch.testing.assert_close(result[1:].mean(dim=(1, 2)), torch.tensor([12.0, -9.0]), atol=0.2, rtol=0)
    torch.testing.assert_close(result[0], color.rgb_to_lab(grey)[0], atol=0.2, rtol=0)


def test_degraded_references_stay_pictures_and_differ_by_seed() -> None:
    reference = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    results = [degrade(reference, np.random.default_rng(seed)) for seed in range(12)]
    assert all(r.shape == reference.shape and r.min() >= 0 and r.max() <= 1 for r in results)
    changed = [not torch.equal(r, reference) for r in results]
    assert 3 < sum(changed) < 12


def test_views_have_about_the_working_size(photographs: list[Path]) -> None:
    with Image.open(photographs[0]) as image:
        for seed in range(6):
            cut = view(image, np.random.default_rng(seed), 0.5)
            assert all(side % 16 == 0 for side in cut.shape[-2:])
            assert 0.8 < cut.shape[-1] * cut.shape[-2] / 256**2 < 1.25


def test_a_pair_follows_from_seed_and_number_alone(photographs: list[Path]) -> None:
    pairs, again = HardPairs(photographs, nothing, seed=3), HardPairs(photographs, nothing, seed=3)
    for index in (4, 1):
        first, second = pairs[index], again[index]
        assert first.kind == second.kind
        assert torch.equal(first.truth, second.truth)
        assert torch.equal(first.reference, second.reference)
    assert not torch.equal(pairs[1].truth, HardPairs(photographs, nothing, seed=4)[1].truth)


def test_references_of_a_class_are_of_it_and_kinds_without_a_partner_become_partial(photographs: list[Path]) -> None:
    likeness = HardPairs(photographs, nothing, seed=0, kinds={"likeness": 1.0})
    for index in range(6):
        pair = likeness[index]
        a, b = (color.rgb_to_lab(x)[2].mean() for x in (pair.truth, pair.reference))
        assert pair.kind == "likeness"
        assert a * b > 0
    strangers = HardPairs([photographs[0], photographs[2]], nothing, seed=0, kinds={"class": 0.5, "person": 0.5})
    assert {strangers[index].kind for index in range(6)} == {"partial"}


def test_one_photograph_is_too_few(photographs: list[Path]) -> None:
    with pytest.raises(UserError, match="at least two"):
        HardPairs(photographs[:1], nothing, seed=0)


def test_people_do_not_overlap_and_those_held_out_are_told_in_both_folders() -> None:
    numbers = [number for run in (*PEOPLE, *OTHERS) for number in run]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) == set(range(1, 434)) - set(range(388, 393))
    for folder in ("Faces", "Faces_easy"):
        assert all(is_held_out(Path(folder) / f"image_{run.start:04d}.jpg") for run in PEOPLE)
        assert not any(is_held_out(Path(folder) / f"image_{run.start:04d}.jpg") for run in OTHERS)
        assert not is_held_out(Path(folder) / "image_0163_.jpg")
    assert person(Path("Faces/image_0174.jpg")) == range(174, 194)
    assert person(Path("chair/image_0174.jpg")) is None
    assert person(Path("Faces/image_0389.jpg")) is None
    assert not is_held_out(Path("Faces/image_0389.jpg"))


def test_a_close_reference_shows_nearly_the_same_in_the_same_place() -> None:
    ramp = torch.stack(torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij"))
    distances = []
    for seed in range(20):
        result = trim(ramp, np.random.default_rng(seed))
        assert result.shape == ramp.shape
        distances.append((result - ramp).abs().amax(dim=(1, 2)))
    most = torch.stack(distances).amax(dim=0)
    assert 2 < most[0] <= 9.6
    assert 3 < most[1] <= 12.8


def test_other_light_keeps_black_and_the_picture_and_moves_greys_by_a_few_units() -> None:
    grey = torch.linspace(0, 1, 64).view(1, 1, -1).expand(3, 8, -1)
    distances = []
    for seed in range(30):
        result = other_light(grey, np.random.default_rng(seed))
        assert result.shape == grey.shape
        assert result[..., 0].abs().max() < 1e-6
        distances.append(float(color.rgb_to_lab(result)[1:, :, 32].norm(dim=0).mean()))
    assert 2 < np.mean(distances) < 12


def test_a_place_has_another_photograph_of_it_as_reference(photographs: list[Path], tmp_path: Path) -> None:
    places = HardPairs(photographs, nothing, seed=0, kinds={"place": 1.0}, places=[tmp_path])
    for index in range(6):
        pair = places[index]
        a, b = (color.rgb_to_lab(x)[2].mean() for x in (pair.truth, pair.reference))
        assert pair.kind == "place"
        assert a * b > 0
    assert HardPairs(photographs, nothing, seed=0, kinds={"place": 1.0})[0].kind == "partial"


def test_another_photograph_of_a_person_is_no_crop_of_the_same(photographs: list[Path], tmp_path: Path) -> None:
    whole, crops = tmp_path / "Faces", tmp_path / "Faces_easy"
    for folder in (whole, crops):
        folder.mkdir()
        for number, photograph in zip((1, 2), photographs, strict=False):
            (folder / f"image_{number:04d}.png").write_bytes(photograph.read_bytes())
    pairs = HardPairs([*sorted(whole.iterdir()), *sorted(crops.iterdir())], nothing, seed=0)
    opened: list[Path] = []
    pairs._open = lambda index: opened.append(pairs.photographs[index])  # type: ignore[method-assign, func-returns-value]
    for own, path in enumerate(pairs.photographs):
        for seed in range(8):
            pairs._partner(own, "person", np.random.default_rng(seed))
        assert {(other.parent, other.name != path.name) for other in opened} == {(path.parent, True)}
        opened.clear()

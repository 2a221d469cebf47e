"""What the protocols' cases are: the same everywhere, matched as they should be, refused in one sentence."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pdnla import UserError
from pdnla.evaluation.protocols import (
    Clips,
    EvenlySpaced,
    GivenPairs,
    Joined,
    PartialPairs,
    WarpedPairs,
    cut,
    spread,
    warped,
)


def save(path: Path, colour: tuple[int, int, int] | int, size: tuple[int, int] = (24, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(colour, tuple) else "L", size, colour).save(path)
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


def test_a_warped_pair_is_a_square_its_grey_and_its_mirrored_warp(album: Path) -> None:
    case = WarpedPairs(album, size=64)[0]
    assert case.name == "astronaut.png"
    assert case.truth is not None
    assert case.truth.size == case.target.size == case.reference.size == (64, 64)
    assert case.target.colour.mode == "L"
    truth = np.asarray(case.truth, dtype=float)
    reference = np.asarray(case.reference.colour, dtype=float)
    still = WarpedPairs(album, size=64, warp=0)[0].reference.colour
    assert np.array_equal(np.asarray(still), np.asarray(case.truth)[:, ::-1])
    assert np.abs(reference - truth[:, ::-1]).mean() > 4


def test_warped_pairs_are_the_same_on_every_machine() -> None:
    ramp = np.add.outer(2 * np.arange(60), 3 * np.arange(48)).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, ramp.T.copy().reshape(60, 48), 255 - ramp], axis=-1))
    actual = warped(picture, 9, np.random.PCG64([0, 5]))
    assert hashlib.sha256(actual.tobytes()).hexdigest()[:16] == "af08565ca7d861f5"


def test_the_warp_is_smooth_and_as_long_as_asked() -> None:
    columns = np.tile(np.arange(128, dtype=np.uint8), (128, 1))
    places = Image.fromarray(np.stack([columns, columns.T, np.zeros_like(columns)], axis=-1))
    for seed in range(3):
        actual = np.asarray(warped(places, 12, np.random.PCG64(seed)), dtype=float)[16:-16, 16:-16]
        moved = actual[..., :2] - np.asarray(places, dtype=float)[16:-16, 16:-16, :2]
        assert 4 < np.hypot(*np.moveaxis(moved, -1, 0)).max() <= 12 + 1
        assert max(np.abs(np.diff(moved, axis=axis)).max() for axis in (0, 1)) <= 2


def test_a_pair_follows_from_its_place_in_the_folder_alone(album: Path) -> None:
    whole = WarpedPairs(album, size=32)
    (last,) = WarpedPairs(album, size=32, count=1).numbers
    assert last == 0
    again = pickle.loads(pickle.dumps(whole))[2]
    assert again.reference.colour.tobytes() == whole[2].reference.colour.tobytes()
    other = WarpedPairs(album, size=32, seed=1)[2]
    assert other.reference.colour.tobytes() != again.reference.colour.tobytes()


def test_a_grey_or_broken_photograph_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 90)
    (tmp_path / "b.png").write_bytes(b"nothing")
    pairs = WarpedPairs(tmp_path)
    with pytest.raises(UserError, match=r"a.png: is grey"):
        pairs[0]
    with pytest.raises(UserError, match=r"b.png: is not an image"):
        pairs[1]


def test_given_pairs_are_matched_by_name_with_what_was_published(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save(tmp_path / "t" / f"{name}.jpg", 90)
        save(tmp_path / "r" / f"{name}.png", (200, 30, 30))
    save(tmp_path / "p" / "y.webp", (10, 90, 10), size=(48, 40))
    pairs = GivenPairs(tmp_path / "t", tmp_path / "r", published=tmp_path / "p")
    assert [pairs[i].name for i in range(len(pairs))] == ["x.jpg", "y.jpg"]
    assert not pairs[0].given
    assert pairs[1].given["published"].size == (24, 20)  # the target's
    assert pairs[0].truth is None
    named = GivenPairs(tmp_path / "t", tmp_path / "r", published={"one": tmp_path / "p", "other": tmp_path / "r"})
    assert set(named[1].given) == {"one", "other"}


def test_one_reference_serves_all_and_is_one_object(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save(tmp_path / "t" / f"{name}.jpg", 90)
    pairs = GivenPairs(tmp_path / "t", save(tmp_path / "r.png", (200, 30, 30)))
    assert pairs[0].reference is pairs[1].reference


def test_a_file_of_pairs_may_name_published_results_in_several_folders(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save(tmp_path / folder / "target" / "1.png", 90)
        save(tmp_path / folder / "reference" / "1.png", (200, 30, 30))
    save(tmp_path / "one" / "published.png", (10, 90, 10))
    lines = ["target,reference,published", "one/target/1.png,one/reference/1.png,one/published.png"]
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join([*lines, "two/target/1.png,two/reference/1.png,\n"]))
    pairs = GivenPairs(pairs_file=file)
    assert [pairs[i].name for i in range(2)] == ["one/target/1.png", "two/target/1.png"]
    assert [set(pairs[i].given) for i in range(2)] == [{"published"}, set()]


def test_a_clip_has_its_first_frame_for_its_reference(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "clip" / f"{number}.png", (200 - number, 30, 30) if number < 3 else 90)
    clip = Clips(tmp_path / "clip")
    cases = [clip[i] for i in range(len(clip))]
    assert [case.name for case in cases] == ["1.png", "2.png", "3.png"]
    assert [case.follows for case in cases] == [False, True, True]
    assert [case.truth is not None for case in cases] == [True, True, False]
    assert cases[0].reference is cases[2].reference
    assert cases[0].reference.colour.getpixel((0, 0)) == (200, 30, 30)
    given = Clips([tmp_path / "clip", tmp_path / "clip"], reference=tmp_path / "clip" / "0.png", count=2)
    assert [given[i].follows for i in range(len(given))] == [False, True, False, True]
    assert len({given[i].name for i in range(len(given))}) == 4


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: WarpedPairs(p / "absent"), "absent: there is no such folder"),
        (lambda p: WarpedPairs(p / "t", size=8), "protocol.size=8: is too small"),
        (lambda p: WarpedPairs(p / "t", warp=-1), "protocol.warp=-1: must not be negative"),
        (lambda p: WarpedPairs(p / "t", count=0), "protocol.count=0: must be at least 1"),
        (lambda p: GivenPairs(), "there is nothing to colour; give protocol.targets="),
        (lambda p: GivenPairs(p / "t", p / "absent"), "protocol.references=.*absent: there is no such file or folder"),
        (lambda p: GivenPairs(p / "t", p / "r"), "no reference has the name of a target"),
        (lambda p: GivenPairs(p / "t", p / "t", p / "x.csv"), "names targets and references itself"),
        (lambda p: GivenPairs(p / "t", p / "t", published=p / "r"), "protocol.published=.*: no reference has the name"),
        (lambda p: GivenPairs(pairs_file=p / "x.csv"), "x.csv: there is no such pairs file"),
        (lambda p: Clips(p / "t"), "a.png: is grey and should give the colours"),
        (lambda p: Clips(p / "r", count=0), "protocol.count=0: must be at least 1"),
        (lambda p: Clips(p / "r"), r"holds 1 frame\(s\), too few for a clip"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make: object, sentence: str, tmp_path: Path) -> None:
    assert callable(make)
    for name in ("a", "b"):
        save(tmp_path / "t" / f"{name}.png", 90)
    save(tmp_path / "r" / "c.png", (200, 30, 30))
    with pytest.raises(UserError, match=sentence):
        make(tmp_path)


def test_a_count_is_spread_evenly() -> None:
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(3, 5) == spread(3, None) == [0, 1, 2]


def test_a_partial_reference_shows_one_side_of_a_cut_and_another_photograph_beyond(album: Path) -> None:
    case, whole = PartialPairs(album, size=64, warp=0)[0], WarpedPairs(album, size=64, warp=0)
    other = np.asarray(whole[1].truth)[:, ::-1]
    own = np.asarray(case.truth)[:, ::-1]
    missing, shown = case.regions["missing"], case.regions["shown"]
    assert np.array_equal(missing, ~shown)
    assert 1 / 3 - 0.02 < missing.mean() < 2 / 3 + 0.02
    reference = np.asarray(case.reference.colour)
    assert np.array_equal(reference[shown[:, ::-1]], own[shown[:, ::-1]])
    assert np.array_equal(reference[missing[:, ::-1]], other[missing[:, ::-1]])
    assert np.array_equal(np.asarray(case.truth), np.asarray(whole[0].truth))


def test_the_next_photograph_in_colour_fills_what_is_missing(album: Path) -> None:
    save(album / "b.png", 90)
    (album / "bb.png").write_bytes(b"nothing")
    pairs = PartialPairs(album, size=64, warp=0)
    case = pairs[0]
    chelsea = np.asarray(WarpedPairs(album, size=64)[3].truth)[:, ::-1]
    beyond = case.regions["missing"][:, ::-1]
    assert np.array_equal(np.asarray(case.reference.colour)[beyond], chelsea[beyond])


def test_partial_references_need_two_photographs_in_colour(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (200, 30, 30))
    with pytest.raises(UserError, match="holds one photograph, and partial references need another"):
        PartialPairs(tmp_path, size=16)
    save(tmp_path / "b.png", 90)
    with pytest.raises(UserError, match="holds one photograph in colour"):
        PartialPairs(tmp_path, size=16)[0]


def test_cuts_have_every_share_from_a_third_to_two_thirds() -> None:
    shares = [cut(64, np.random.PCG64([0, number])).mean() for number in range(100)]
    assert min(shares) < 0.36
    assert max(shares) > 0.64
    assert all(0.32 < share < 0.68 for share in shares)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A target, its reference and its truth, twice as large, and a pair without a truth."""
    save(tmp_path / "target" / "a.png", 120, (40, 30))
    save(tmp_path / "target" / "b.png", 120)
    save(tmp_path / "reference" / "a.png", (30, 200, 30), (80, 20))
    save(tmp_path / "reference" / "b.png", (30, 200, 30))
    save(tmp_path / "truth" / "a.jpg", (30, 30, 200), (80, 60))
    return tmp_path


def test_truths_are_matched_by_name_and_brought_to_the_target(place: Path) -> None:
    pairs = GivenPairs(place / "target", place / "reference", truths=place / "truth")
    truth = pairs[0].truth
    assert truth is not None
    assert truth.size == (40, 30)
    assert truth.getpixel((3, 3))[2] > 190  # type: ignore[index]
    assert pairs[1].truth is None
    save(place / "truth" / "b.jpg", (90, 91, 92))
    assert GivenPairs(place / "target", place / "reference", truths=place / "truth")[1].truth is not None
    save(place / "truth" / "b.jpg", 90)
    with pytest.raises(UserError, match=r"b.jpg: is grey and should be the truth"):
        GivenPairs(place / "target", place / "reference", truths=place / "truth")[1]
    save(place / "empty" / "c.jpg", (90, 9, 90))
    with pytest.raises(UserError, match=r"protocol.truths=.*empty: "):
        GivenPairs(place / "target", place / "reference", truths=place / "empty")


def test_a_file_of_pairs_may_have_truths(place: Path) -> None:
    (place / "pairs.csv").write_text(
        "target,reference,truth\ntarget/a.png,reference/a.png,truth/a.jpg\ntarget/b.png,reference/b.png,\n"
    )
    pairs = GivenPairs(pairs_file=place / "pairs.csv")
    assert [pairs[i].truth is None for i in (0, 1)] == [False, True]


def test_large_pictures_are_reduced_to_a_longer_side(place: Path) -> None:
    case = GivenPairs(place / "target", place / "reference", truths=place / "truth", size=24)[0]
    assert case.target.size == (24, 18)
    assert case.reference.size == (24, 6)
    assert case.truth is not None
    assert case.truth.size == (24, 18)
    with pytest.raises(UserError, match=r"protocol.size=8: is too small"):
        GivenPairs(place / "target", place / "reference", size=8)


def test_joined_protocols_follow_each_other_and_samples_are_spread(place: Path) -> None:
    pairs = GivenPairs(place / "target", place / "reference")
    joined = Joined({"one": pairs, "other": pairs})
    assert [joined[i].name for i in range(len(joined))] == ["one/a.png", "one/b.png", "other/a.png", "other/b.png"]
    sample = EvenlySpaced(joined, 2)
    assert [sample[i].name for i in range(len(sample))] == ["one/a.png", "other/a.png"]

"""Photographs for validation and folds: a photograph's name decides, whatever else there is."""

from pathlib import Path

from pdnla.data.splitting import EVERY, fold_of, split

ALL = [Path(f"photographs/{folder}/{number:04d}.jpg") for folder in ("cats", "dogs", "huts") for number in range(4000)]


def test_each_photograph_is_on_one_side_once() -> None:
    training, validation = split([*ALL, *ALL[:50]])
    assert sorted([*training, *validation]) == sorted(ALL)
    assert 0.7 < len(validation) * EVERY / len(ALL) < 1.3
    assert training == sorted(training)
    folds = [fold_of(training, fold, 3) for fold in range(3)]
    assert sorted(path for fold in folds for path in fold) == training
    assert all(0.95 < 3 * len(fold) / len(training) < 1.05 for fold in folds)


def test_other_photographs_change_nothing() -> None:
    some = ALL[1000:]
    for mine, theirs in zip(split(some), split([Path("elsewhere") / path for path in ALL]), strict=True):
        assert {path.name for path in mine if path.parent.name == "huts"} == {
            path.name for path in theirs if path.parent.name == "huts"
        }
    training = split(ALL).training
    held = set(fold_of(training, 0, 2))
    assert held.isdisjoint(fold_of(split(some).training, 1, 2))


def test_of_few_photographs_two_are_for_validation() -> None:
    training, validation = split(ALL[:5])
    assert (len(training), len(validation)) == (3, 2)
    assert len(split(ALL[:3]).training) == 1


def test_a_crop_of_a_photograph_is_on_its_side() -> None:
    names = [f"image_{number:04d}.jpg" for number in range(1, 434)]
    photographs = [Path("caltech101") / folder / name for folder in ("Faces", "Faces_easy") for name in names]
    training, validation = split(photographs)
    for part in (training, validation, fold_of(training, 0, 2)):
        faces, crops = ({path.name for path in part if path.parent.name == name} for name in ("Faces", "Faces_easy"))
        assert faces == crops

"""The suite: its parts, what it leaves out, and the people who are held out."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pdnla import UserError
from pdnla.data.held_out import PEOPLE, is_held_out
from pdnla.evaluation.faces import PAIRS, Faces, oval
from pdnla.evaluation.measures import MEASURES
from pdnla.evaluation.suite import Suite, parts_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up pictures where the suite's folders have photographs."""
    root = tmp_path_factory.mktemp("suite")
    noise = np.random.default_rng(0)
    numbers = {number for pair in PAIRS for number in (pair.target, pair.reference)}
    names = [f"Faces/image_{number:04d}.jpg" for number in numbers]
    for set_of_pairs, last in (("places", "truth"), ("old", "published"), ("older", "published")):
        names += [f"{set_of_pairs}/{kind}/{name}.jpg" for kind in ("target", "reference", last) for name in "ab"]
    names += [f"photographs/{name}.jpg" for name in "abc"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((48, 32)).save(root / name)
    return root


def test_the_suite_has_a_part_for_each_folder_and_says_what_it_leaves_out(folders: Path) -> None:
    whole = Suite(
        folders / "places",
        folders / "Faces",
        folders / "photographs",
        [folders / "old", folders / "older"],
        square=32,
        counts={"faces": 4, "warped": 2, "published": 3},
    )
    assert {name: len(part.protocol) for name, part in whole.parts.items()} == {
        "views": 2,
        "faces": 4,
        "warped": 2,
        "partial": 3,
        "published": 3,
    }
    assert whole.left_out == []
    assert all(measure in MEASURES for part in whole.parts.values() for measure in part.overview)
    for name, part in whole.parts.items():
        case = pickle.loads(pickle.dumps(part.protocol))[0]  # as another process has it
        assert (case.truth is None) is (name == "published")
        assert set(case.given) == ({"published"} if name == "published" else set())
        assert set(case.regions) == {"faces": {"skin"}, "partial": {"missing", "shown"}}.get(name, set())
    assert parts_of(whole, "suite") is whole.parts

    some = Suite(faces=folders / "Faces")
    assert list(some.parts) == ["faces"]
    assert some.left_out == ["views", "photographs", "published"]


def test_what_the_suite_cannot_use_is_one_sentence(folders: Path) -> None:
    with pytest.raises(UserError, match=r"protocol=suite: there is nothing to evaluate; give some of protocol.views="):
        Suite()
    with pytest.raises(UserError, match=r"protocol.views=.*old: has no folder truth/; it needs target/"):
        Suite(views=folders / "old")
    with pytest.raises(UserError, match=r"image_0042.jpg: there is no such file; give the folder Faces of Caltech-101"):
        Suite(faces=folders / "photographs")
    with pytest.raises(UserError, match=r"protocol.counts.view: is not a part of the suite"):
        Suite(folders / "places", counts={"view": 3})
    with pytest.raises(UserError, match=r"protocol.published: two folders have the same name"):
        Suite(published=[folders / "old", folders / "old"])


def test_pairs_of_faces_are_two_photographs_of_each_person_held_out() -> None:
    people = {pair: [run for run in PEOPLE if pair.target in run and pair.reference in run] for pair in PAIRS}
    assert all(len(runs) == 1 for runs in people.values())
    assert all(pair.target != pair.reference for pair in PAIRS)
    assert sorted(runs[0].start for runs in people.values()) == sorted(2 * [run.start for run in PEOPLE])
    assert len(PEOPLE) == 10


@pytest.mark.parametrize(
    ("path", "apart"),
    [
        ("Faces/image_0042.jpg", True),
        ("Faces_easy/image_0046.jpg", True),
        ("Faces/image_0047.jpg", False),
        ("Faces/image_0041.jpg", False),
        ("Faces/image_0417.jpg", True),
        ("accordion/image_0042.jpg", False),
        ("Faces/readme.txt", False),
    ],
)
def test_who_is_held_out_follows_from_folder_and_number(path: str, apart: bool) -> None:
    assert is_held_out(Path("caltech101/train") / path) is apart


def test_skin_is_an_oval_around_the_middle_of_the_face(folders: Path) -> None:
    skin = oval((240, 160), 0.25)
    assert skin.shape == (160, 240)
    assert skin[88, 60]
    assert skin.mean() == pytest.approx(np.pi / 4 * 0.30 * 0.38 * 160 / 240, rel=0.01)
    assert not skin[:, :30].any()
    assert not skin[:, 90:].any()
    assert Faces(folders / "Faces", 1)[0].name == "42 after 44"

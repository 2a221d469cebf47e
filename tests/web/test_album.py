"""The Album tab without a browser: failures listed, results in one archive, others in between, stopped at any time."""

import threading
import zipfile
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from pdnla.errors import UserError
from pdnla.inference.colorizer import Colorizer
from pdnla.web.album import AlbumProgress, colour_uploads, unique_names
from pdnla.web.still import Still
from pdnla.web.studio import Studio, Turns
from pdnla.web.uploads import Limits


def done(studio: Studio, folder: Path, targets: list[Path], references: list[Path]) -> AlbumProgress:
    states = list(colour_uploads(studio, targets, references, folder))
    assert [state.done for state in states] == [*range(len(targets) + 1), len(targets)]
    assert all(state.archive is None for state in states[:-1])
    return states[-1]


def contents(archive: Path | None) -> dict[str, bytes]:
    assert archive is not None
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def test_an_album_with_broken_files_gives_the_others_and_says_why(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    names = ["astronaut_grey.png", "broken.jpg", "described.jpg", "moving.gif", "deep.png", "pages.tif"]
    targets = [*(pictures / name for name in names), notes]
    references = [pictures / "coffee.png", pictures / "mirrored.jpg", pictures / "broken.jpg"]
    state = done(studio, tmp_path / "files", targets, references)
    failures = {row.name: row.failure for row in state.rows if row.failure}
    assert set(failures) == {"broken.jpg", "moving.gif", "notes.txt"}
    assert failures["broken.jpg"].startswith("broken.jpg: is truncated or damaged")
    assert failures["moving.gif"].startswith("moving.gif: is an animation")
    assert failures["notes.txt"].startswith("notes.txt: is not an image that can be read")
    assert [sentence.split(":")[0] for sentence in state.left_out] == ["broken.jpg"]
    assert all(row.reference == "mirrored.jpg" and row.score for row in state.rows if not row.failure)
    files = contents(state.archive)
    assert set(files) == {"astronaut_grey.png", "described.jpg", "deep.png", "pages.tif", "failed.csv"}
    assert str(tmp_path) not in files["failed.csv"].decode()
    assert files["deep.png"][24] == 16
    with Image.open(BytesIO(files["pages.tif"])) as pages:
        assert (pages.n_frames, pages.mode) == (2, "RGB")  # type: ignore[attr-defined]
    with Image.open(BytesIO(files["described.jpg"])) as described:
        assert described.getexif()[0x010E] == "Portrait"


def test_one_reference_serves_all_and_names_that_occur_twice_are_numbered(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    again = tmp_path / "other" / "Astronaut_grey.PNG"
    again.parent.mkdir()
    again.write_bytes((pictures / "chelsea_grey.png").read_bytes())
    state = done(studio, tmp_path / "files", [pictures / "astronaut_grey.png", again], [pictures / "coffee.png"])
    files = contents(state.archive)
    assert list(files) == ["Astronaut_grey_2.PNG", "astronaut_grey.png"]
    assert (
        Image.open(BytesIO(files["Astronaut_grey_2.PNG"])).size != Image.open(BytesIO(files["astronaut_grey.png"])).size
    )
    assert unique_names(["a.jpg", "A.jpg", "a_2.jpg"]) == ["a.jpg", "A_2.jpg", "a_2_2.jpg"]


def test_an_album_of_failures_has_no_archive(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    state = done(studio, tmp_path, [pictures / "broken.jpg"], [pictures / "coffee.png"])
    assert state.archive is None
    assert state.rows[0].failure.startswith("broken.jpg: is truncated or damaged")


def test_an_album_that_cannot_begin_says_why(colorizer: Colorizer, pictures: Path, tmp_path: Path) -> None:
    studio = Studio(colorizer, Limits(files=2))
    picture, folder = pictures / "coffee.png", tmp_path / "files"
    with pytest.raises(UserError, match="there are no pictures; choose some first"):
        next(colour_uploads(studio, [], [picture], folder))
    with pytest.raises(UserError, match="there is no reference; choose one"):
        next(colour_uploads(studio, [picture], [], folder))
    with pytest.raises(UserError, match=r"^broken.jpg: is truncated or damaged"):
        next(colour_uploads(studio, [picture], [pictures / "broken.jpg"], folder))
    with pytest.raises(UserError, match=r"^coffee_grey.png: is grey and should give the colours"):
        next(colour_uploads(studio, [picture], [pictures / "coffee_grey.png"], folder))
    with pytest.raises(UserError, match="3 pictures are more than this page takes at a time, 2; send fewer"):
        next(colour_uploads(studio, [picture] * 3, [picture], folder))
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    with pytest.raises(UserError, match=r"^notes.txt: is not an image that can be read"):
        next(colour_uploads(studio, [picture], [notes], folder))
    assert not list(folder.glob("*"))


def test_an_album_that_is_stopped_keeps_what_is_coloured(
    studio: Studio, network: object, pictures: Path, tmp_path: Path
) -> None:
    targets = [pictures / "broken.jpg", *[pictures / "astronaut_grey.png"] * 4]
    calls = network.calls  # type: ignore[attr-defined]
    stop = threading.Event()
    for state in colour_uploads(studio, targets, [pictures / "coffee.png"], tmp_path, stop=stop):
        if state.done == 2:
            stop.set()
    assert network.calls - calls == 1  # type: ignore[attr-defined]
    assert (state.done, state.total) == (2, 5)
    assert set(contents(state.archive)) == {"astronaut_grey.png", "failed.csv"}


def test_an_album_that_is_left_stops_and_leaves_nothing(
    studio: Studio, network: object, pictures: Path, tmp_path: Path
) -> None:
    targets = [pictures / "astronaut_grey.png"] * 5
    calls = network.calls  # type: ignore[attr-defined]
    with closing(colour_uploads(studio, targets, [pictures / "coffee.png"], tmp_path)) as states:
        while next(states).done < 2:
            pass
    assert network.calls - calls == 2  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_turns_are_given_in_the_order_they_were_asked_for() -> None:
    turns, order, started = Turns(), [], threading.Barrier(2)

    def ask(name: str) -> None:
        started.wait()
        with turns.turn():
            order.append(name)

    threads = []
    with turns.turn():
        for name in "abc":
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            started.wait()
            while len(turns) < len(threads) + 1:
                pass
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c"]


def test_another_user_has_a_turn_between_two_pictures_of_an_album(
    studio: Studio, network: object, pictures: Path, tmp_path: Path
) -> None:
    other = Still(studio, tmp_path / "still")
    other.take_target(pictures / "chelsea_grey.png")
    other.take_references([pictures / "chelsea.png"])
    other.choose_candidates()
    calls: list[str] = []
    ready = threading.Event()
    thread = threading.Thread(target=lambda: (other.colour(), calls.append("still")))

    def begin() -> None:
        """While the album's first picture is coloured, let the other ask."""
        network.before = lambda: None  # type: ignore[attr-defined]
        thread.start()
        while len(studio.turns) < 2:
            pass
        ready.set()

    network.before = begin  # type: ignore[attr-defined]
    for state in colour_uploads(
        studio, [pictures / "astronaut_grey.png"] * 3, [pictures / "coffee.png"], tmp_path / "a"
    ):
        calls.append(f"album {state.done}")
        if state.done == 1:
            assert ready.is_set()
            thread.join()
    assert calls.index("still") == calls.index("album 1") + 1
    assert other.editor is not None

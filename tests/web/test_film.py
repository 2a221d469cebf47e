"""The Film tab without a browser: shots with their references to change, progress, and stopping."""

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pdnla.errors import UserError
from pdnla.web.film import FilmDesk, ShotRow, Stopped
from pdnla.web.studio import Studio

av = pytest.importorskip("av", reason="the extra pdnla[film] is not installed")
pytest.importorskip("cv2", reason="the extra pdnla[film] is not installed")

FRAMES = 12  # of the clip


@pytest.fixture
def closed() -> threading.Event:
    return threading.Event()


@pytest.fixture
def desk(studio: Studio, tmp_path: Path, closed: threading.Event) -> FilmDesk:
    return FilmDesk(studio, tmp_path / "film", closed)


def mean_colours(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [frame.reshape(-1, 3).mean(axis=0) for frame in frames]


def test_shots_take_the_references_that_they_resemble_and_a_user_may_change_them(
    desk: FilmDesk, clip: Path, pictures: Path
) -> None:
    assert desk.take(clip, [pictures / "coffee.png", pictures / "mirrored.jpg"]) == []
    searched: list[int] = []
    shots = desk.find_shots(lambda done, total: searched.append(done))
    assert searched, "the search tells how far it is"
    assert [row.first for row in shots.rows] == [0, FRAMES // 2]
    assert [row.last for row in shots.rows] == [FRAMES // 2 - 1, FRAMES - 1]
    assert [row.references.split(", ")[0] for row in shots.rows] == ["2", "1"]
    assert [frame.size for frame in shots.frames] == [(96, 64)] * 2
    changed = [shots.rows[0]._replace(references="1"), shots.rows[1]._replace(references="1")]
    results = []
    for rows in (shots.rows, changed):
        states = list(desk.colour(rows, threading.Event()))
        assert (states[-1].done, states[-1].total) == (FRAMES, FRAMES)
        assert all(state.result is None for state in states[:-1])
        assert states[-1].result is not None
        assert states[-1].result.name == "two shots_colorized.mp4"
        results.append(mean_colours(states[-1].result))
    own, other = results
    assert len(own) == len(other) == FRAMES
    assert np.abs(own[0] - other[0]).max() > 4, "another reference gives other colours"
    assert np.abs(own[-1] - other[-1]).max() < 2


def test_references_that_cannot_be_used_are_told_and_left_out(desk: FilmDesk, clip: Path, pictures: Path) -> None:
    grey = pictures / "rocket_grey.png"
    assert Image.open(grey).mode == "L"
    broken, without_colour = desk.take(clip, [grey, pictures / "coffee.png", pictures / "broken.jpg"])[::-1]
    assert broken.startswith("broken.jpg: is truncated or damaged")
    assert without_colour == "rocket_grey.png: is grey and should give the colours; leave it out or colour it"
    assert [one.name for one in desk.references] == ["coffee.png"]
    with pytest.raises(UserError, match=r"^rocket_grey\.png: is grey and should give the colours"):
        desk.take(clip, [grey])


def test_a_film_is_stopped_by_its_user_or_by_leaving(
    desk: FilmDesk, clip: Path, pictures: Path, closed: threading.Event
) -> None:
    desk.take(clip, [pictures / "coffee.png"])
    rows = desk.find_shots(lambda done, total: None).rows
    stop = threading.Event()
    states = desk.colour(rows, stop)
    next(states)
    stop.set()
    with pytest.raises(Stopped):
        list(states)
    with closing(desk.colour(rows, threading.Event())) as states:
        next(states)
        with pytest.raises(
            UserError, match="this film is already being worked on; wait until it is finished, or stop it"
        ):
            desk.find_shots(lambda done, total: None)
    assert not [thread for thread in threading.enumerate() if thread.name == "film"]
    assert list(desk.colour(rows, threading.Event()))[-1].result is not None, "it goes on where it was"
    closed.set()
    with pytest.raises(Stopped):
        desk.find_shots(lambda done, total: None)


def test_what_is_wrong_with_a_film_or_its_shots_is_told_without_paths(
    desk: FilmDesk, clip: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="there is no film; choose a video file first"):
        desk.take(None, [])
    with pytest.raises(UserError, match="there is no reference; choose pictures in colour"):
        desk.take(clip, [])
    with pytest.raises(UserError, match=r"^coffee.png: is not a video file; choose one that ends in"):
        desk.take(pictures / "coffee.png", [pictures / "coffee.png"])
    with pytest.raises(UserError, match="there is no film"):
        desk.find_shots(lambda done, total: None)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:200])
    desk.take(cut, [pictures / "coffee.png"])
    with pytest.raises(UserError, match=r"^cut.mp4: "):
        desk.find_shots(lambda done, total: None)
    secret = tmp_path / "secret.png"
    secret.write_bytes((pictures / "coffee.png").read_bytes())
    desk.take(clip, [pictures / "coffee.png"])
    for rows, told in {
        (ShotRow(0, 5, "2"),): "shot 0 to 5: there is no reference 2; give numbers from 1 to 1",
        (ShotRow(0, 5, str(secret)),): "there is no reference .*secret.png; give numbers",
        (ShotRow(0, 5, "1"),): "^the table of shots: ends at frame 5 and the film at 11",
        (
            ShotRow(0, 5, "1"),
            ShotRow(5, 11, "1"),
        ): "^the table of shots, line 3: goes from 5 to 11 where a shot from 6",
    }.items():
        with pytest.raises(UserError, match=told):
            list(desk.colour(rows, threading.Event()))

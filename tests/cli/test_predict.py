"""``pdnla-predict``: each picture once, whatever the devices, however often it is stopped."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pdnla.cli.predict import main
from pdnla.cli.prepare import main as prepare
from pdnla.inference.prediction import share

SMALL = ["weights=pdnla_tiny", "size=32", "precision=float32", "trainer=cpu"]
Command = Callable[..., int]


@pytest.fixture
def predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_command: Callable[[Callable[[], None], list[str]], int]
) -> Command:
    """Return what runs the command in this process, in the test's folder, and returns its exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: hydra_command(main, ["pdnla-predict", *SMALL, *arguments])


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Return a folder of frames of two sizes, one in a folder of its own, and write a reference beside it."""
    folder = tmp_path / "frames"
    (folder / "later").mkdir(parents=True)
    view = Image.fromarray(data.coffee())
    for number in range(8):
        size = (48, 32) if number % 3 else (40, 40)
        place = folder / "later" if number > 6 else folder
        view.crop((number, 0, number + 300, 200)).resize(size).convert("L").save(place / f"{number}.png")
    Image.fromarray(data.chelsea()).resize((60, 40)).save(tmp_path / "cat.png")
    return folder


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(folder)): np.asarray(Image.open(path), np.int16) for path in sorted(folder.rglob("*.png"))
    }


def in_processes(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pdnla.cli.predict", *SMALL, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_devices_write_what_one_writes(predict: Command, frames: Path, tmp_path: Path) -> None:
    given = ["targets=frames", "references=cat.png"]
    assert predict(*given, "out=one", "batch_size=3") == 0
    run = in_processes(tmp_path, *given, "out=two", "trainer.devices=2")
    output, _ = run.communicate()
    assert run.returncode == 0, output
    assert "8 coloured, 0 skipped, 0 failed" in output
    one, two = pixels(tmp_path / "one"), pixels(tmp_path / "two")
    assert sorted(one) == [*(f"{n}.png" for n in range(7)), "later/7.png"]
    assert one.keys() == two.keys()
    for name, picture in one.items():
        assert picture.shape == (*np.asarray(Image.open(frames / name)).shape, 3)
        assert np.abs(picture - two[name]).max() <= 1  # batches round differently
        assert np.ptp(picture, axis=-1).max() > 0


def test_devices_share_all_pictures_whatever_is_done(frames: Path, tmp_path: Path) -> None:
    from pdnla.inference.album import plan_jobs

    jobs = plan_jobs(frames, tmp_path / "cat.png", tmp_path / "out").jobs
    jobs[2].result.parent.mkdir(parents=True)
    jobs[2].result.touch()
    shares = [share(jobs, rank, 3, overwrite=False) for rank in range(3)]
    assert sorted(job for own in shares for job in own.jobs) == sorted(job for job in jobs if job != jobs[2])
    assert [own.skipped for own in shares] == [0, 0, 1]
    # One that begins later, when others have results, takes none of theirs.
    jobs[0].result.touch()
    assert share(jobs, 1, 3, overwrite=False) == shares[1]
    assert share(jobs, 2, 3, overwrite=True).jobs == jobs[2::3]


def test_killed_in_the_middle_it_goes_on_with_nothing_done_twice_or_lost(frames: Path, tmp_path: Path) -> None:
    for number in range(8, 60):
        Image.open(frames / "1.png").save(frames / f"{number}.png")
    given = ["targets=frames", "references=cat.png", "out=out", "trainer.devices=2", "batch_size=1"]
    run = in_processes(tmp_path, *given)
    out = tmp_path / "out"
    deadline = time.monotonic() + 120
    while len(list(out.rglob("[!.]*.png"))) < 5 and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    time.sleep(0.2)  # until the processes are gone
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.png")}
    assert 5 <= len(before) < 60
    assert all(Image.open(path).size == (48, 32) or path.stem in "0369" for path in before)
    again = in_processes(tmp_path, *given)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert f"{60 - len(before)} coloured, {len(before)} skipped, 0 failed" in output
    after = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.png")}
    assert len(after) == 60
    assert all(after[path] == written for path, written in before.items())


def test_pairs_of_a_file_each_have_their_reference(predict: Command, frames: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "red.png")
    lines = ["target,reference", "frames/1.png,cat.png", "frames/2.png,red.png", "frames/1.png,red.png"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    assert predict("pairs_file=pairs.csv", "out=out", "weights=default") == 0
    results = pixels(tmp_path / "out")
    assert len(results) == 3
    cat, red, second = results["1.png.png"], results["2.png"], results["1.png_2.png"]
    assert np.abs(cat - second).max() > 10
    assert red.shape == (32, 48, 3)


def test_pictures_can_be_coloured_at_their_own_size(predict: Command, frames: Path, tmp_path: Path) -> None:
    assert predict("targets=frames", "references=cat.png", "out=out", "size=native") == 0
    assert predict("targets=frames", "references=cat.png", "out=small") == 0
    native, small = pixels(tmp_path / "out"), pixels(tmp_path / "small")
    assert {name: picture.shape for name, picture in native.items()} == {
        name: picture.shape for name, picture in small.items()
    }
    assert any(np.abs(native[name] - small[name]).max() > 2 for name in native)


def test_shards_are_coloured_photograph_by_photograph(predict: Command, tmp_path: Path, frames: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(6):
        view = Image.fromarray(data.coffee()).crop((60 * number, 0, 60 * number + 300, 200)).resize((96, 64))
        view.save(photographs / f"{number}.jpg", quality=95)
    sys.argv = ["pdnla-prepare", "photographs", "shards"]
    with pytest.raises(SystemExit) as left:
        prepare()
    assert not left.value.code
    assert predict("targets=shards", "references=cat.png", "out=out") == 0
    results = pixels(tmp_path / "out")
    assert sorted(results) == [f"000000/000000-00000{number}.png" for number in range(6)]
    assert all(picture.shape == (64, 96, 3) for picture in results.values())
    assert predict("targets=shards", "references=frames", "out=out") == 2


def test_what_fails_is_listed_and_the_rest_is_done(
    predict: Command, frames: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (frames / "9.png").write_text("no picture")
    given = ["targets=frames", "references=cat.png", "out=out"]
    assert predict(*given) == 1
    output = capfd.readouterr()
    assert "8 coloured, 0 skipped, 1 failed" in output.out
    assert "failed: frames/9.png: is not an image" in output.err
    with (tmp_path / "out" / ".predict" / "failed.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["reason"]
    assert rows[1][0].startswith("frames/9.png: is not an image")
    (frames / "9.png").unlink()
    assert predict(*given) == 0
    assert "0 coloured, 8 skipped, 0 failed" in capfd.readouterr().out
    assert not (tmp_path / "out" / ".predict" / "failed.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["targets=frames", "references=cat.png"], "out is not set"),
        (["targets=frames", "out=o"], "references is not set; give targets=FOLDER references=PICTURE"),
        (["out=o"], "targets is not set"),
        (["targets=absent", "references=cat.png", "out=o"], "absent: there is no such file or folder"),
        (["targets=cat.png", "references=cat.png", "out=o"], "targets=cat.png: is a file; name a folder"),
        (["targets=frames", "references=cat.png", "out=frames"], "frames: is where the pictures come from"),
        (["targets=frames", "pairs_file=p.csv", "out=o"], "targets=frames: pairs_file is given as well"),
        (["pairs_file=p.csv", "out=o"], "p.csv: is no file of pairs"),
        (["targets=frames", "references=cat.png", "out=o", "batch_size=0"], "batch_size=0: must be at least 1"),
        (["targets=frames", "references=cat.png", "out=o", "size=huge"], "size=huge: must be a number, such as 512"),
        (["targets=frames", "references=cat.png", "out=cat.png/o"], "cat.png/o/.predict: Not a directory; choose"),
        (
            ["targets=frames", "references=cat.png", "out=o", "wieghts=x"],
            "wieghts is no option; the nearest is weights",
        ),
        (["targets=frames", "references=cat.png", "out=o", "weights=x.ckpt"], "x.ckpt: there is no such weights file"),
    ],
)
def test_mistakes_get_one_sentence_and_write_no_picture(
    predict: Command,
    frames: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = set(tmp_path.rglob("*.png"))
    assert predict(*arguments) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("pdnla-predict: ")
    assert sentence in line
    assert set(tmp_path.rglob("*.png")) == before

"""``pdnla-colorize`` on very many pictures: each once, whatever the processes, however often it is stopped."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fork_server import python
from PIL import Image
from processes import Run, start
from skimage import data

from pdnla.cli.colorize import main
from pdnla.cli.predict import equivalent_command
from pdnla.cli.predict import main as predict
from pdnla.cli.prepare import main as prepare
from pdnla.inference.planning import plan_album

SMALL = ["--weights", "pdnla_tiny", "--size", "32", "--precision", "float32", "--device", "cpu"]
Command = Callable[..., int]


@pytest.fixture
def colorize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return what runs the command in this process, in the test's folder, and returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["pdnla-colorize", *SMALL, *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    return run


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


def started(folder: Path, *arguments: str) -> Run:
    return start("pdnla-colorize", [*SMALL, *arguments], folder)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(colorize: Command, frames: Path, tmp_path: Path) -> None:
    given = ["frames", "cat.png"]
    assert colorize(*given, "-o", "one", "--batch-size", "3") == 0
    output = started(tmp_path, *given, "-o", "two", "--devices", "2").finish()
    assert "8 coloured, 0 skipped, 0 failed" in output
    assert "coloured 8/8" in output
    one, two = pixels(tmp_path / "one"), pixels(tmp_path / "two")
    assert sorted(one) == [*(f"{n}.png" for n in range(7)), "later/7.png"]
    assert one.keys() == two.keys()
    for name, picture in one.items():
        assert picture.shape == (*np.asarray(Image.open(frames / name)).shape, 3)
        assert np.abs(picture - two[name]).max() <= 1  # batches round differently
        assert np.ptp(picture, axis=-1).max() > 0


def test_shares_follow_from_all_pictures_whatever_is_done(frames: Path, tmp_path: Path) -> None:
    album = plan_album(frames, tmp_path / "cat.png", tmp_path / "out")
    before = [album.share(number, 3).tasks for number in range(3)]
    assert sorted(task for tasks in before for task in tasks) == sorted(album.tasks)
    before[0][0].result.parent.mkdir(parents=True)
    before[0][0].result.touch()
    album = plan_album(frames, tmp_path / "cat.png", tmp_path / "out")
    assert [album.share(number, 3).tasks for number in range(3)] == before


@pytest.mark.parametrize(
    "launcher",
    [
        {"RANK": "{}", "LOCAL_RANK": "{}", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "{}", "SLURM_LOCALID": "{}", "SLURM_STEP_NUM_TASKS": "2"},
    ],
    ids=["torchrun", "srun"],
)
def test_each_launched_process_does_its_share_and_lists_its_failures(
    launcher: dict[str, str],
    colorize: Command,
    frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (frames / "3.png").write_text("no picture")
    for number, status in ((1, 1), (0, 0)):
        for name, value in launcher.items():
            monkeypatch.setenv(name, value.format(number))
        assert colorize("frames", "cat.png", "-o", "out") == status
        message = capfd.readouterr().out
        assert f"process {number} of 2: {4 - number} coloured, 0 skipped, {number} failed" in message
    expected = ["0.png", "1.png", "2.png", "4.png", "5.png", "6.png", "later/7.png"]
    assert sorted(pixels(tmp_path / "out")) == expected
    assert [path.name for path in (tmp_path / "out").glob("*.csv")] == ["failed_1_of_2.csv"]
    for name in launcher:
        monkeypatch.delenv(name)
    (frames / "3.png").unlink()
    assert colorize("frames", "cat.png", "-o", "out") == 0
    assert not list((tmp_path / "out").glob("*.csv"))


@pytest.mark.slow
def test_torchrun_lets_all_processes_finish_though_one_has_failures(frames: Path, tmp_path: Path) -> None:
    for task in plan_album(frames, tmp_path / "cat.png", tmp_path / "out").share(0, 2).tasks:
        Path(task.target).write_text("no picture")  # so that this process ends long before the other
    launcher = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "pdnla.cli.colorize", *SMALL, "frames", "cat.png", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(pixels(tmp_path / "out")) == 4, done.stderr
    assert "process 0 of 2: 0 coloured, 0 skipped, 4 failed" in done.stdout
    assert "process 1 of 2: 4 coloured, 0 skipped, 0 failed" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="the test sends POSIX signals or forks")
@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_nothing_done_twice_or_lost(frames: Path, tmp_path: Path) -> None:
    for number in range(8, 60):
        Image.open(frames / "1.png").save(frames / f"{number}.png")
    given = ["frames", "cat.png", "-o", "out", "--devices", "2"]
    run = started(tmp_path, *given)
    out = tmp_path / "out"
    run.wait_until(lambda: len(list(out.rglob("[!.]*.png"))) >= 5)
    run.send(signal.SIGKILL)
    run.finish(-signal.SIGKILL)
    run.wait_for_group()  # its processes leave by themselves, and may end a picture before
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.png")}
    assert 5 <= len(before) < 60
    assert all(Image.open(path).size == (48, 32) or path.stem in "0369" for path in before)
    (out / ".pdnla-0123abcd.png").write_bytes(b"half of it")
    output = started(tmp_path, *given).finish()
    assert f"{60 - len(before)} coloured, {len(before)} skipped, 0 failed" in output
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert len([path for path in after if path.is_file()]) == 60  # nothing else is left either
    assert all(after[path] == written for path, written in before.items())


@pytest.mark.skipif(sys.platform == "win32", reason="the test sends POSIX signals or forks")
@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_in_one_sentence(frames: Path, tmp_path: Path) -> None:
    for number in range(8, 200):
        Image.open(frames / "1.png").save(frames / f"{number}.png")
    run = started(tmp_path, "frames", "cat.png", "-o", "out", "--devices", "2")
    run.wait_until(lambda: run.output.startswith("coloured 1/200"))
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    names = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children}
    os.kill(next(int(child) for child, name in names.items() if "spawn_main" in name), signal.SIGKILL)
    output = run.finish(2)
    assert "pdnla-colorize: a process was killed (signal 9), perhaps because memory was short;" in output
    assert "Traceback" not in output


@pytest.mark.skipif(sys.platform == "win32", reason="the test sends POSIX signals or forks")
@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_leaves_whole_results_alone(frames: Path, tmp_path: Path) -> None:
    for number in range(8, 200):
        Image.open(frames / "1.png").save(frames / f"{number}.png")
    run = started(tmp_path, "frames", "cat.png", "-o", "out", "--devices", "2")
    run.wait_until(lambda: run.output.startswith("coloured 1/200"))
    run.send(signal.SIGINT, group=True)  # as a terminal does
    output = run.finish(130)
    assert output.splitlines()[-1] == "pdnla-colorize: interrupted"
    assert "Traceback" not in output
    results = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert 1 <= len(results) < 200
    for path in results:
        Image.open(path).load()


@pytest.mark.slow
def test_pairs_of_a_file_each_have_their_reference(colorize: Command, frames: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "red.png")
    lines = ["target,reference", "frames/1.png,cat.png", "frames/2.png,red.png", "frames/1.png,red.png"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    assert colorize("pairs.csv", "-o", "out", "--weights", "default") == 0
    results = pixels(tmp_path / "out")
    assert len(results) == 3
    cat, red, second = results["1.png.png"], results["2.png"], results["1.png_2.png"]
    assert np.abs(cat - second).max() > 10
    assert red.shape == (32, 48, 3)


def test_pictures_can_be_coloured_at_their_own_size(colorize: Command, frames: Path, tmp_path: Path) -> None:
    assert colorize("frames", "cat.png", "-o", "out", "--size", "native") == 0
    assert colorize("frames", "cat.png", "-o", "small") == 0
    native, small = pixels(tmp_path / "out"), pixels(tmp_path / "small")
    assert {name: picture.shape for name, picture in native.items()} == {
        name: picture.shape for name, picture in small.items()
    }
    assert any(np.abs(native[name] - small[name]).max() > 2 for name in native)


def test_shards_are_coloured_photograph_by_photograph(colorize: Command, tmp_path: Path, frames: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(6):
        view = Image.fromarray(data.coffee()).crop((60 * number, 0, 60 * number + 300, 200)).resize((96, 64))
        view.save(photographs / f"{number}.jpg", quality=95)
    sys.argv = ["pdnla-prepare", "photographs", "shards"]
    with pytest.raises(SystemExit) as left:
        prepare()
    assert not left.value.code
    assert colorize("shards", "cat.png", "-o", "out") == 0
    results = pixels(tmp_path / "out")
    assert sorted(results) == [f"000000/000000-00000{number}.png" for number in range(6)]
    assert all(picture.shape == (64, 96, 3) for picture in results.values())
    assert colorize("shards", "frames", "-o", "out") == 2


def test_what_fails_is_listed_and_the_rest_is_done(
    colorize: Command, frames: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (frames / "9.png").write_text("no picture")
    given = ["frames", "cat.png", "-o", "out"]
    assert colorize(*given) == 1
    output = capfd.readouterr()
    assert "8 coloured, 0 skipped, 1 failed" in output.out
    assert "/9 frames/9.png: is not an image" in output.err
    with (tmp_path / "out" / "failed.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["reason"]
    assert rows[1][0].startswith("frames/9.png: is not an image")
    (frames / "9.png").unlink()
    assert colorize(*given) == 0
    assert "0 coloured, 8 skipped, 0 failed" in capfd.readouterr().out
    assert not (tmp_path / "out" / "failed.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frames"], "no REFERENCE given"),
        (["absent", "cat.png"], "absent: there is no such file or folder"),
        (["frames", "cat.png", "-o", "frames"], "frames: is the folder of the pictures"),
        (["p.csv", "cat.png"], "p.csv: is a pairs file, which names its references itself; leave cat.png out"),
        (["p.csv"], "p.csv: there is no such file or folder"),
        (["frames", "cat.png", "-o", "cat.png/o"], "cat.png/o: cannot be created (Not a directory); choose another"),
        (["frames", "cat.png", "-o", "o", "--weights", "x.ckpt"], "--weights x.ckpt: there is no such file"),
        (["frames", "cat.png", "-o", "o", "--devices", "0"], "--devices"),
    ],
)
def test_mistakes_get_one_sentence_and_write_no_picture(
    colorize: Command,
    frames: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = set(tmp_path.rglob("*.png"))
    assert colorize(*arguments) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("pdnla-colorize: ")
    assert sentence in line
    assert set(tmp_path.rglob("*.png")) == before


def test_references_of_many_processes_cannot_be_kept_in_one_list(
    colorize: Command, frames: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert colorize("frames", "--pick-from", "frames", "--keep-reference") == 2
    assert "use --devices instead" in capfd.readouterr().err


# pdnla-predict


def test_pdnla_predict_says_in_one_sentence_where_it_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["targets=my film/", "references=still.jpg", "out=o/", "trainer.devices=4", "batch_size=8"]
    monkeypatch.setattr(sys, "argv", ["pdnla-predict", *overrides, "overwrite=true"])
    with pytest.raises(SystemExit) as left:
        predict()
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "pdnla-predict: is now part of pdnla-colorize; the same is: pdnla-colorize 'my film/' still.jpg -o o/"
        " --batch-size 8 --devices 4 --overwrite\n"
    )


def test_pairs_files_and_options_of_pdnla_predict_have_their_equivalents() -> None:
    overrides = ["pairs_file=p.csv", "out=o", "weights=w.ckpt", "size=native", "precision=float32", "compile=true"]
    options = "-o o --weights w.ckpt --size native --precision float32 --compile --device cpu"
    assert equivalent_command([*overrides, "trainer=cpu"]) == f"pdnla-colorize p.csv {options}"
    assert equivalent_command([]) == "pdnla-colorize TARGETS REFERENCES"

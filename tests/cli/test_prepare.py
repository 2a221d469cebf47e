"""``pdnla-prepare``: every photograph verified, whole shards, a killed run goes on, mistakes get one sentence."""

import csv
import errno
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fork_server import python
from PIL import Image
from processes import piped

from pdnla.cli.prepare import main
from pdnla.data.shards import Shards

START = "from pdnla.cli.prepare import main\nif __name__ == '__main__':\n    main()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-two photographs of about 170 kB in two classes, six to a shard of 1 MB, a grey and a broken one."""
    root = tmp_path / "in"
    rng = np.random.default_rng(0)
    for i in range(22):
        pixels = rng.integers(0, 256, (250, 250, 3)) * [1, 0.6, 0.4]
        path = root / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    Image.new("RGB", (40, 30), (90, 90, 90)).save(root / "class0/grey.jpg")
    whole = (root / "class0/0.png").read_bytes()
    (root / "class1/broken.png").write_bytes(whole[: len(whole) // 2])
    (root / "class1/text.jpg").write_text("no picture")
    (root / "class1/nowhere.jpg").symlink_to(root / "absent.jpg")
    return root


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pdnla-prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path, *options: object) -> int:
    return command(monkeypatch, folder, out, "--shard-size", 1, "--workers", 1, *options)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")}


def test_every_readable_colour_photograph_is_in_a_shard_once_and_the_others_are_listed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prepare(monkeypatch, folder, out) == 0
    pictures = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            pictures += [tar.extractfile(m).read() for m in tar if m.name.endswith(".png")]  # type: ignore[union-attr]
    assert sorted(pictures) == sorted((folder / f"class{i % 2}/{i}.png").read_bytes() for i in range(22))
    with (out / "left_out.csv").open(newline="") as file:
        heading, *lines = csv.reader(file)
    assert heading == ["photograph", "reason"]
    reasons = dict(lines)
    assert list(reasons) == ["class0/grey.jpg", "class1/broken.png", "class1/nowhere.jpg", "class1/text.jpg"]
    assert reasons["class0/grey.jpg"] == "grey"
    assert reasons["class1/broken.png"].startswith("is truncated or damaged")
    assert reasons["class1/nowhere.jpg"] == "cannot be read: No such file or directory"
    assert reasons["class1/text.jpg"] == "is not an image that can be read; convert it to PNG, JPEG, WebP, TIFF or BMP"
    output = capsys.readouterr().out
    assert "wrote 1/4 shard 0: " in output
    assert "22 photographs in 4 shards, 0 of which existed before; 4 left out (1 grey, 3 unreadable)" in output


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_as_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(monkeypatch, folder, tmp_path / "one") == 0
    arguments = [str(folder), str(tmp_path / "two"), "--shard-size", "1", "--workers", "2"]
    start = tmp_path / "start.py"
    start.write_text(START)
    subprocess.run([python(), str(start), *arguments], check=True, capture_output=True)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_killed_run_goes_on_with_what_is_missing_and_ends_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prepare(monkeypatch, folder, out) == 0
    whole, before = contents(out), stamps(out)
    (out / "left_out.csv").unlink()
    (out / "shard-000001.json").unlink()  # killed between the shard and its index
    (out / "shard-000002.tar").unlink()
    (out / ".pdnla-a1b2c3d4.tar").write_bytes(b"half of it")
    os.truncate(out / "shard-000003.tar", 5000)
    assert prepare(monkeypatch, folder, out) == 0
    assert contents(out) == whole
    after = stamps(out)
    assert {name for name in after if after[name] == before[name]} == {"shard-000000.tar", "shard-000000.json"}
    assert "22 photographs in 4 shards, 1 of which existed before; 4 left out" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="the test sends POSIX signals or forks")
@pytest.mark.slow
def test_a_run_killed_at_once_leaves_nothing_that_training_would_take(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, out = tmp_path / "start.py", tmp_path / "out"
    start.write_text(START)
    arguments = [str(folder), str(out), "--shard-size", "1", "--workers", "2"]
    with piped([python(), str(start), *arguments]) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("wrote 1/"):
                break
        running.kill()
        running.stdout.read()  # until its processes have left too, which hold the other end
    assert prepare(monkeypatch, folder, out) == 0
    assert prepare(monkeypatch, folder, tmp_path / "other") == 0
    assert contents(out) == contents(tmp_path / "other")


def test_other_options_or_photographs_are_refused_until_told_to_begin_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prepare(monkeypatch, folder, out) == 0
    kept = contents(out)
    assert prepare(monkeypatch, folder, out, "--size", 32) == 2
    assert "was begun with --size 0; repeat that, choose another folder, or add --overwrite" in error(capsys)
    assert command(monkeypatch, folder, out, "--shard-size", 2) == 2
    assert "was begun with --shard-size 1" in error(capsys)
    (folder / "class0/2.png").unlink()
    assert prepare(monkeypatch, folder, out) == 2
    assert "holds shards of other photographs" in error(capsys)
    assert contents(out) == kept
    assert prepare(monkeypatch, folder, out, "--size", 32, "--overwrite") == 0
    with Image.open(Shards(out)[0].open()) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))
    assert len(Shards(out)) == 21
    (out / "plan.json").unlink()
    assert prepare(monkeypatch, folder, out) == 2
    assert "holds shards without plan.json" in error(capsys)


def test_a_full_disk_is_one_sentence_and_leaves_whole_shards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, added = tmp_path / "out", []
    add = tarfile.TarFile.addfile

    def until_full(*arguments: object) -> None:
        added.append(arguments)
        if len(added) > 15:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tarfile.TarFile, "addfile", until_full)
    assert prepare(monkeypatch, folder, out) == 2
    assert "shard-000001.tar: the disk is full; free some space or choose another place" in error(capsys)
    assert sorted(contents(out)) == ["plan.json", "shard-000000.json", "shard-000000.tar"]
    monkeypatch.undo()
    assert prepare(monkeypatch, folder, out) == 0


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_mistakes_get_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "greys").mkdir()
    Image.new("L", (40, 30), 90).save(tmp_path / "greys/g.png")
    for arguments, sentence in [
        (("absent", "out"), "there is no such folder"),
        (("empty", "out"), "holds no image"),
        (("file", "out"), "is a file; name the folder with the images"),
        (("greys", "file"), "is a file; name a folder for the shards"),
        (("greys", "out", "--workers", 1), "holds no readable colour photograph; choose another folder (1 left out"),
        (("greys", "greys"), "greys: is the folder of the photographs; name another"),
        (("greys", "out", "--shard-size", 0), "see pdnla-prepare --help"),
        (("greys",), "see pdnla-prepare --help"),
    ]:
        given = [tmp_path / a if str(a).isalpha() else a for a in arguments]
        assert command(monkeypatch, *given) == 2
        assert sentence in error(capsys)
    assert not list((tmp_path / "out").iterdir())
    assert [path.name for path in (tmp_path / "greys").iterdir()] == ["g.png"]


def test_training_from_shards_composes(tmp_path: Path) -> None:
    arguments = ["data=imagenet_shards", f"data.root={tmp_path}", "--cfg", "job"]
    ran = subprocess.run(
        [sys.executable, "-m", "pdnla.cli.train", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "_target_: pdnla.data.modules.ShardData" in ran.stdout
    assert f"root: {tmp_path}" in ran.stdout
    assert "shuffle_shards: 0" in ran.stdout

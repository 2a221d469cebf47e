"""Names, places and readers as people have them: none of them ends a command or loses what else is to be done."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Done, run_here
from fork_server import python
from PIL import Image

from pdnla.cli import progress
from pdnla.cli.colorize import main
from pdnla.cli.pairs import main as pairs
from pdnla.cli.prepare import main as prepare

SMALL = ["--weights", "pdnla_tiny", "--size", "16", "--precision", "float32", "--device", "cpu"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs a command, pdnla-colorize if no other is given, in this process and the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str, main: Callable[[], None] = main) -> Done:
        given = ["pdnla-colorize", *SMALL] if main.__module__ == "pdnla.cli.colorize" else ["command"]
        return run_here(main, [*given, *arguments], monkeypatch, capsys)

    return run


@pytest.fixture(autouse=True)
def colours(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "r.png")


def grey(*paths: str | bytes) -> None:
    """Write a grey picture at each path."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(content, "PNG")
    for path in paths:
        name = os.fsdecode(path)
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        Path(name).write_bytes(content.getvalue())


def results(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).rglob("*.png"))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8:strict", "ascii"])
@pytest.mark.slow
def test_names_are_printed_escaped_whatever_the_encoding(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grey(b"album/caf\xe9.png", "album/日本 → é.png", "album/[x]a[/x].png", "album/two\nlines.png")
    (tmp_path / os.fsdecode(b"album/broken\xff.png")).write_bytes(b"x")
    done = subprocess.run(
        [python(), "-m", "pdnla.cli.colorize", *SMALL, "album", "r.png"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert lines[-1] == b"4 coloured, 0 skipped, 1 failed"
    assert b"caf\\udce9.png: album_colorized/caf\\udce9.png" in done.stdout
    assert b"[x]a[/x].png" in done.stdout
    assert b"two\\nlines.png" in done.stdout
    assert b"album/broken\\udcff.png: is not an image" in done.stderr
    assert len(results("album_colorized")) == 4
    assert b"album/broken\xff.png: is not an image" in Path("album_colorized/failed.csv").read_bytes()


@pytest.mark.slow
def test_a_bar_shows_any_name_as_it_is(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    grey("album/a.png", "album/[a/x].png")
    for name in (b"caf\xe9.png", "[a/x].png", "[bold]b.png"):
        Path("album", os.fsdecode(name)).write_bytes(b"x")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    done = command("album", "r.png")
    assert done.status == 1
    for name in ("caf\\udce9.png", "[a/x].png", "[bold]b.png"):
        assert f"album/{name}: is not an image" in done.err


@pytest.mark.slow
def test_names_that_bytes_and_line_ends_are_in_are_picked_for_and_listed(command: Command) -> None:
    grey(b"album/caf\xe9.png", "album/two\nlines.png")
    Path("many").mkdir()
    Image.open("r.png").save(os.fsdecode(b"many/\xe9\n.png"))
    done = command("album", "--pick-from", "many", "--keep-reference")
    assert done.status == 0
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 0 failed"
    assert command("album_colorized/references.csv", "-o", "again").status == 0
    assert len(results("again")) == 2
    assert command("album", "-o", os.fsdecode(b"album/caf\xe9.csv"), "--references", "many", main=pairs).status == 0


@pytest.mark.slow
def test_long_names_are_written_and_a_result_that_cannot_be_is_reported(command: Command) -> None:
    long = "a" * 246
    grey(f"album/{long}.png", "album/b.png", f"{long}.png")
    Path("album_colorized/b.png").mkdir(parents=True)  # nothing can take its place
    done = command("album", "r.png", "--overwrite")
    assert done.status == 1
    assert "album_colorized/b.png: cannot be written" in done.err
    assert done.out.splitlines()[-1] == "1 coloured, 0 skipped, 1 failed"
    assert Path(f"album_colorized/{long}.png").is_file()
    done = command(f"{long}.png", "r.png")  # the result's name has ten letters more
    assert done.status == 2
    assert "its name is too long; choose a shorter one" in done.err
    assert command(f"{long}.png", "r.png", "-o", "short.png").status == 0


@pytest.mark.slow
def test_frames_are_taken_in_natural_order(command: Command) -> None:
    grey(*(f"film/f{number}.png" for number in range(1, 13)))
    Path("colours").mkdir()
    for number in range(1, 13):
        Image.open("r.png").save(f"colours/{number}.png")
    done = command("film", "colours")
    assert done.status == 0
    assert "paired in sorted order, f1.png with 1.png" in done.err
    names = [line.split()[2] for line in done.out.splitlines() if line.startswith("coloured")]
    assert names == [f"f{number}.png:" for number in range(1, 13)]


@pytest.mark.slow
def test_names_that_differ_in_case_or_in_how_accents_are_composed_go_together(command: Command) -> None:
    grey("album/cafe\u0301.png", "album/IMG_1.JPG.png", "album/b.png")
    for name in ("caf\u00e9.png", "img_1.jpg.png", "b.png"):
        Path("refs").mkdir(exist_ok=True)
        Image.open("r.png").save(f"refs/{name}")
    done = command("album", "refs")
    assert done.status == 0, done.err


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.slow
def test_links_to_themselves_and_to_nowhere_are_named_and_the_rest_is_done(command: Command) -> None:
    grey("album/a.png", "album/b.png")
    Path("album/itself.png").symlink_to("itself.png")
    Path("album/nowhere.png").symlink_to("absent.png")
    Path("album/loop").symlink_to("loop")
    done = command("album", "r.png")
    assert done.status == 1
    assert "album/itself.png: cannot be read" in done.err
    assert "album/nowhere.png: there is no such image" in done.err
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 2 failed"
    done = command("album", "--references", ".", "-o", "pairs.csv", "--workers", "0", "--least", "-1", main=pairs)
    assert done.status == 1
    assert "left out: album/nowhere.png: there is no such image" in done.err
    assert "2 of 4 pictures" in done.out


def test_a_line_of_a_pairs_file_without_its_picture_is_named_and_the_rest_is_done(command: Command) -> None:
    grey("a.png")
    Path("pairs.csv").write_text("missing.png,r.png\na.png,r.png\n")
    done = command("pairs.csv")
    assert done.status == 1
    assert "pairs.csv, line 1: missing.png is not there; paths are relative to ." in done.err
    assert done.out.splitlines()[-1] == "1 coloured, 0 skipped, 1 failed"


def test_a_folder_in_the_place_of_a_result_is_a_failure_and_not_a_result(command: Command) -> None:
    grey("album/a.png", "album/b.png")
    Path("out/a.png").mkdir(parents=True)
    done = command("album", "r.png", "-o", "out")
    assert done.status == 1
    assert "out/a.png: cannot be written (Is a directory); choose another place" in done.err
    assert done.out.splitlines()[-1] == "1 coloured, 0 skipped, 1 failed"


def test_a_file_in_a_folder_without_permission_is_one_sentence(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuse(path: str | Path, **options: object) -> os.stat_result:
        if "secret" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)  # type: ignore[arg-type]

    grey("a.png")
    monkeypatch.setattr(os, "stat", refuse)  # for root too
    for arguments in (["secret/a.png", "r.png"], ["a.png", "secret/r.png"]):
        done = command(*arguments)
        assert done.status == 2
        assert done.err.startswith("pdnla-colorize: secret/")
        assert "Permission denied" in done.err
        assert done.err.count("\n") == 1


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make folders named ``secret`` unreadable, for root too."""
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.usefixtures("unreadable")
@pytest.mark.slow
def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_done(command: Command) -> None:
    grey("album/a.png", "album/secret/b.png", "many/g.png")
    Image.open("r.png").save("many/r.png")
    Path("many/secret").mkdir()
    sentence = "secret: cannot be listed (Permission denied); check its permissions"
    done = command("album", "r.png")
    assert done.status == 1
    assert f"album/{sentence}" in done.err
    assert done.out.splitlines()[-1] == "1 coloured, 0 skipped, 1 failed"
    done = command("album/a.png", "--pick-from", "many", "-o", "a.png")
    assert (done.status, Path("a.png").is_file()) == (1, True)
    assert f"left out: many/{sentence}" in done.err
    done = command("album", "--references", "many", "-o", "p.csv", "--workers", "0", "--least", "-1", main=pairs)
    assert (done.status, Path("p.csv").is_file()) == (1, True)
    done = command("many", "shards", "--workers", "1", main=prepare)
    assert done.status == 1
    assert "1 photographs in 1 shards" in done.out
    assert f"left out: many/{sentence}" in done.err
    done = command("album/secret", "r.png")
    assert (done.status, done.err.startswith("pdnla-colorize: album/secret: cannot be listed")) == (2, True)


@pytest.mark.parametrize(
    "text",
    [
        "\ufefftarget;reference\nalbum/a.png;r.png\n",
        "\ufeffalbum/a.png;r.png\r\n",
        "target\treference\nalbum/a.png\tr.png\n",
        "target, reference\nalbum/a.png, r.png\n",
    ],
)
def test_files_of_pairs_as_spreadsheets_and_people_write_them(text: str, command: Command) -> None:
    grey("album/a.png")
    Path("p.csv").write_bytes(text.encode())
    assert command("p.csv", "-o", "out").status == 0
    assert results("out") == ["a.png"]


def test_blanks_at_the_start_of_names_in_a_file_of_pairs_are_kept(command: Command) -> None:
    grey(" a.png")
    Path("p.csv").write_text("target,reference\n a.png,r.png\n")
    assert command("p.csv", "-o", "out").status == 0
    assert results("out") == [" a.png"]


def test_a_name_that_ends_in_a_slash_is_a_new_folder(command: Command) -> None:
    grey("a.png")
    assert command("a.png", "r.png", "-o", "new/folder/").status == 0
    assert results("new/folder") == ["a_colorized.png"]


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_printing_and_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grey(*(f"album/{number}.png" for number in range(8)))
    line = " ".join([python(), "-m", "pdnla.cli.colorize", *SMALL, "album", "r.png"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | head -1"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("coloured 1/8")
    assert len(results("album_colorized")) == 8


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("describing", total=100) as shown:
        for _ in range(100):
            shown.advance()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"describing {number}/100 pictures" for number in range(5, 101, 5)]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.Progress("describing") as shown:
        shown.update(3, 3)
    output = capsys.readouterr()
    assert output.out == ""
    assert "3/3" in output.err

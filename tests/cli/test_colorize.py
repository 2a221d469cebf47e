"""The command: what goes with what, where results go, what happens to broken files, exit statuses."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command, Done, MeanColour, refused, run_here
from PIL import Image, ImageOps
from skimage import data
from torch import nn

import pdnla.inference.colorizer
from pdnla.data.pairs_file import read_pairs
from pdnla.errors import UserError
from pdnla.inference import pipeline
from pdnla.inference.planning import Task, result_names

cli = importlib.import_module("pdnla.cli.colorize")

RED, BLUE = (200, 30, 30), (20, 30, 220)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in an empty folder, with weights of the stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pdnla.inference.colorizer, "load_network", lambda path: MeanColour())
    weights = tmp_path.parent / "weights.safetensors"
    weights.touch()

    def run(*arguments: object, weights: Path | None = weights) -> Done:
        given = ["--size", "32", "--device", "cpu", *(str(argument) for argument in arguments)]
        if weights is not None:
            given += ["--weights", str(weights)]
        return run_here(cli.main, ["pdnla-colorize", *given], monkeypatch, capsys)

    return run


def picture(path: str, colour: tuple[int, int, int] | int = 120, size: tuple[int, int] = (20, 14)) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)
    return Path(path)


def hue(path: str | Path) -> str:
    red, _, blue = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).mean(axis=0)
    return "red" if red > blue + 30 else "blue" if blue > red + 30 else "grey"


def files(folder: str | Path = ".") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_picture_gets_its_result_beside_it(command: Command) -> None:
    done = command(picture("in/old.jpg"), picture("ref.png", RED))
    assert done == (0, "coloured 1/1 old.jpg: in/old_colorized.png\n", "")
    assert files() == ["in/old.jpg", "in/old_colorized.png", "ref.png"]
    assert hue("in/old_colorized.png") == "red"
    assert Image.open("in/old_colorized.png").size == (20, 14)


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("TIF", "TIFF"), ("webp", "WEBP"), ("png", "PNG")])
def test_the_suffix_of_the_result_decides_its_format(command: Command, suffix: str, kind: str) -> None:
    done = command(picture("a.png"), picture("r.png", BLUE), "-o", f"new/folder/b.{suffix}")
    assert done.status == 0
    assert Image.open(f"new/folder/b.{suffix}").format == kind


def test_one_picture_into_a_folder(command: Command) -> None:
    Path("results").mkdir()
    assert command(picture("a.png"), picture("r.png", BLUE), "-o", "results").status == 0
    assert files("results") == ["a_colorized.png"]


def test_a_folder_keeps_its_tree_beside_it(command: Command) -> None:
    for name in ("b.jpg", "a.png", "deep/er/a.png"):
        picture(f"album/{name}")
    done = command("album", picture("r.png", BLUE))
    assert done.status == 0
    assert files("album_colorized") == ["a.png", "b.png", "deep/er/a.png"]
    assert done.out.splitlines() == [
        "coloured 1/3 a.png: album_colorized/a.png",
        "coloured 2/3 b.jpg: album_colorized/b.png",
        "coloured 3/3 deep/er/a.png: album_colorized/deep/er/a.png",
        "3 coloured, 0 skipped, 0 failed",
    ]
    assert {hue(path) for path in Path("album_colorized").rglob("*.png")} == {"blue"}


def test_a_folder_named_by_a_dot_gets_its_result_beside_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("album/a.png")
    picture("r.png", RED)
    monkeypatch.chdir("album")
    assert command(".", "../r.png").status == 0
    assert files("../album_colorized") == ["a.png"]


def test_targets_of_one_name_do_not_overwrite_each_other(command: Command) -> None:
    for name in ("a.png", "a.jpg", "a.jpg.png", "b.png", "B.jpg"):
        picture(f"album/{name}")
    assert command("album", picture("r.png", RED)).status == 0
    assert files("album_colorized") == ["B.jpg.png", "a.jpg.png", "a.jpg_2.png", "a.png.png", "b.png.png"]


def test_result_names_are_always_different() -> None:
    targets = [Path(name) for name in ("a.png", "a.jpg", "a.jpg.png", "A.JPG", "x/a.png", "c.d.png", "c.e.png")]
    names = [str(name).casefold() for name in result_names(targets)]
    assert len(set(names)) == len(targets)
    assert all(name.endswith(".png") for name in names)


def test_results_inside_the_folder_are_no_targets(command: Command) -> None:
    picture("album/a.png")
    picture("r.png", RED)
    for _ in range(2):
        assert command("album", "r.png", "-o", "album/done", "--overwrite").status == 0
    assert files("album") == ["a.png", "done/a.png"]


def test_references_inside_the_folder_are_no_targets(command: Command) -> None:
    picture("album/a.png")
    picture("album/references/a.png", RED)
    assert command("album", "album/references").status == 0
    assert files("album_colorized") == ["a.png"]


def test_references_are_matched_by_name(command: Command) -> None:
    for name in ("a.png", "b.jpg", "x/a.png"):
        picture(f"album/{name}")
    picture("refs/a.tif", RED)
    picture("refs/other/b.png", BLUE)
    picture("refs/x/a.png", BLUE)
    picture("refs/unused.png", RED)
    assert command("album", "refs").status == 0
    assert [hue(f"album_colorized/{name}") for name in ("a.png", "b.png", "x/a.png")] == [
        "red",
        "blue",
        "blue",
    ]


def test_a_single_target_finds_its_reference_in_a_folder(command: Command) -> None:
    picture("refs/a.png", BLUE)
    picture("refs/b.png", RED)
    assert command(picture("b.jpg"), "refs").status == 0
    assert hue("b_colorized.png") == "red"


def test_without_a_matching_name_equal_counts_are_paired_in_order(command: Command) -> None:
    picture("album/1.png")
    picture("album/2.png")
    picture("refs/x.png", RED)
    picture("refs/y.png", BLUE)
    done = command("album", "refs")
    assert done.status == 0
    assert "paired in sorted order, 1.png with x.png" in done.err
    assert [hue(f"album_colorized/{name}.png") for name in "12"] == ["red", "blue"]


def test_some_without_a_reference_are_reported_and_the_rest_is_done(command: Command) -> None:
    for name in "abc":
        picture(f"album/{name}.png")
    picture("refs/a.png", RED)
    picture("refs/c.png", RED)
    picture("refs/c.jpg", BLUE)
    picture("refs/z.png", BLUE)
    done = command("album", "refs")
    assert done.status == 1
    assert "album/b.png: there is no reference named b in refs; add one" in done.err
    assert files("album_colorized") == ["a.png", "c.png", "failed.csv"]
    assert hue("album_colorized/c.png") == "red"  # of two of its name, the one with its suffix
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 1 failed"


def test_two_references_of_one_name_are_not_guessed_between(command: Command) -> None:
    picture("album/a.webp")
    picture("album/b.png")
    for name in ("a.png", "a.jpg", "b.png"):
        picture(f"refs/{name}", RED)
    done = command("album", "refs")
    assert done.status == 1
    assert "album/a.webp: refs/a.jpg and refs/a.png both have its name" in done.err
    assert files("album_colorized") == ["b.png", "failed.csv"]


def test_no_match_and_different_counts_are_refused(command: Command) -> None:
    picture("album/1.png")
    picture("refs/x.png", RED)
    picture("refs/y.png", BLUE)
    refused(command("album", "refs"), "no reference has the name of a target", "2 references for 1 targets")
    assert not Path("album_colorized").exists()


def test_a_broken_file_is_reported_and_the_rest_is_done(command: Command) -> None:
    for name in "ac":
        picture(f"album/{name}.png")
    Path("album/b.jpg").write_bytes(b"not an image")
    Path("album/d.png").write_bytes(b"")
    done = command("album", picture("r.png", RED), "--batch-size", 3)
    assert done.status == 1
    assert [line.split(":")[0] for line in done.err.splitlines()] == [
        "failed 1/4 album/b.jpg",
        "failed 2/4 album/d.png",
    ]
    assert files("album_colorized") == ["a.png", "c.png", "failed.csv"]
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 2 failed"


def test_a_broken_reference_of_one_target_spares_the_others(command: Command) -> None:
    for name in "ab":
        picture(f"album/{name}.png")
        picture(f"refs/{name}.png", RED)
    Path("refs/a.png").write_bytes(b"not an image")
    done = command("album", "refs")
    assert done.status == 1
    assert "refs/a.png: is not an image" in done.err
    assert files("album_colorized") == ["b.png", "failed.csv"]


def test_a_picture_that_breaks_the_network_spares_the_rest_of_its_batch(command: Command) -> None:
    for name, grey in [("a", 100), ("b", 255), ("c", 90)]:
        picture(f"album/{name}.png", grey)
    done = command("album", picture("r.png", RED), "--batch-size", 3)
    assert done.status == 1
    assert "album/b.png: the network's result is not finite" in done.err
    assert files("album_colorized") == ["a.png", "c.png", "failed.csv"]


def test_a_folder_of_broken_files_is_refused(command: Command) -> None:
    Path("album").mkdir()
    Path("album/a.png").write_bytes(b"x")
    done = command("album", picture("r.png", RED))
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("pdnla-colorize: album: nothing in it could be coloured")


def test_existing_results_are_skipped_undecoded_unless_overwritten(command: Command) -> None:
    picture("album/a.png")
    Path("album/b.png").write_bytes(b"broken, but it has a result")
    Path("album_colorized").mkdir()
    Path("album_colorized/b.png").write_bytes(b"old")
    picture("r.png", RED)
    done = command("album", "r.png")
    assert done.status == 0
    assert "b.png: album_colorized/b.png exists" in done.out
    assert done.out.splitlines()[-1] == "1 coloured, 1 skipped, 0 failed"
    assert Path("album_colorized/b.png").read_bytes() == b"old"
    picture("album/b.png")
    assert command("album", "r.png", "--overwrite").out.splitlines()[-1] == "2 coloured, 0 skipped, 0 failed"
    assert hue("album_colorized/b.png") == "red"


def test_an_existing_result_of_one_picture_is_skipped(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("a.png")
    picture("r.png", RED)
    Path("out.png").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "read_image", lambda path: pytest.fail("decoded"))
        done = command("a.png", "r.png", "-o", "out.png")
    assert done.status == 0
    assert "out.png exists; --overwrite replaces it" in done.out
    assert Path("out.png").read_bytes() == b"old"
    assert command("a.png", "r.png", "-o", "out.png", "--overwrite").status == 0
    assert hue("out.png") == "red"


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_give_the_same_results(command: Command, batch_size: int) -> None:
    for index, size in enumerate([(20, 14), (40, 28), (14, 20), (20, 15)]):
        picture(f"album/{index}.png", 60 + 40 * index, size)
        picture(f"refs/{index}.png", (RED, BLUE)[index % 2])
    assert command("album", "refs", "--batch-size", batch_size).status == 0
    assert [hue(f"album_colorized/{index}.png") for index in range(4)] == ["red", "blue"] * 2
    assert [Image.open(f"album_colorized/{i}.png").size for i in range(4)] == [
        (20, 14),
        (40, 28),
        (14, 20),
        (20, 15),
    ]


def test_huge_pictures_do_not_wait_for_a_full_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pipeline, "BATCH_PIXELS", 500)
    tasks = [Task(str(i), picture(f"{tmp_path}/{i}.png"), tmp_path, tmp_path) for i in range(5)]
    batches = pipeline.batches(tasks, 100, True)
    assert [len(batch) for batch in batches if isinstance(batch, list)] == [2, 2, 1]


def test_bad_usage_is_one_sentence_and_status_2(command: Command) -> None:
    picture("a.png")
    picture("r.png", RED)
    Path("empty").mkdir()
    Path("broken.png").write_bytes(b"x")
    refused(command("missing.png", "r.png"), "missing.png: there is no such file")
    refused(command("a.png", "missing.png"), "missing.png: there is no such file")
    refused(command("empty", "r.png"), "empty: holds no image")
    refused(command("a.png", "empty"), "empty: holds no image")
    refused(command("broken.png", "r.png"), "broken.png: is not an image")
    refused(command("a.png", "broken.png"), "broken.png: is not an image")
    refused(command("a.png", picture("grey.png", 90)), "grey.png: is grey and should give the colours")
    refused(command("a.png", "r.png", "-o", "x.gif"), "x.gif", ".png, .jpg")
    refused(command("a.png", "r.png", "-o", "x"), "no suffix")
    refused(command("a.png", "r.png", "-o", "a.png", "--overwrite"), "a.png: is a target or a reference")
    refused(command("a.png", "r.png", "-o", "./r.png", "--overwrite"), "r.png: is a target or a reference")
    refused(command("a.png", "r.png", "--batch-size", 0), "--batch-size", "--help")
    refused(command("a.png", "r.png", "--size", 8), "--size")
    refused(command("a.png", "r.png", "--size", 10_000), "--size")
    refused(command("a.png", "r.png", "--precision", "float8"), "--precision", "bfloat16")
    refused(command("a.png", "r.png", "--device", "cuda:99"), "cuda:99 is not available")
    refused(command("a.png", "r.png", "--nonsense"), "--nonsense")
    refused(command("a.png"), "REFERENCE")
    refused(
        command("a.png", "r.png", weights=Path("none.safetensors")),
        "none.safetensors",
        "use one of default, pdnla_informed, pdnla_semantic, pdnla_tiny",
    )
    assert files() == ["a.png", "broken.png", "grey.png", "r.png"]


def test_a_folder_is_not_coloured_into_itself_or_its_references(command: Command) -> None:
    picture("album/a.png")
    picture("refs/a.png", RED)
    picture("a.png", RED)
    Path("file").touch()
    for out in ("album", "./refs/../album", "refs"):
        refused(command("album", "refs", "-o", out, "--overwrite"), "is the folder of the pictures")
    refused(command("album", "a.png", "-o", ".", "--overwrite"), "a.png: is a target or a reference")
    refused(command("album", "refs", "-o", "file"), "file: is a file")


def test_ctrl_c_leaves_nothing_half_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("album/a.png")
    picture("album/b.png")
    write_bytes = Path.write_bytes

    def interrupted(self: Path, content: bytes) -> int:
        write_bytes(self, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        done = command("album", picture("r.png", RED))
    assert done.status == 130
    assert done.err.splitlines()[-1] == "pdnla-colorize: interrupted"
    assert files("album_colorized") == []


def test_a_full_disk_ends_the_run_in_one_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("album/a.png")
    picture("album/b.png")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        refused(command("album", picture("r.png", RED)), "album_colorized/a.png", "disk is full")
    assert files("album_colorized") == []


def test_faults_of_ours_keep_their_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(path: Path) -> nn.Module:
        raise ZeroDivisionError("ours")

    picture("a.png")
    picture("r.png", RED)
    monkeypatch.setattr(pdnla.inference.colorizer, "load_network", fault)
    monkeypatch.setattr(sys, "argv", ["pdnla-colorize", "a.png", "r.png", "--weights", str(Path("a.png"))])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_bar_is_shown_on_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "[bold]b.png"):
        picture(f"album/{name}")
    Path("album/[red]c.png").write_bytes(b"x")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    done = command("album", picture("r.png", RED))
    assert done.status == 1
    assert done.out == "2 coloured, 0 skipped, 1 failed\n"
    assert "album/[red]c.png: is not an image" in done.err
    assert "3/3" in done.err


@pytest.mark.slow
def test_help_shows_an_example() -> None:
    script = (
        "import sys, pdnla.cli.colorize as c\n"
        "sys.argv = ['pdnla-colorize', '--help']\n"
        "try: c.main()\n"
        "except SystemExit as end: print('status', end.code)\n"
    )
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert "status 0" in done.stdout
    assert "pdnla-colorize old.jpg similar.jpg" in done.stdout
    assert "TARGET" in done.stdout
    assert "REFERENCE" in done.stdout


def test_run_turns_what_the_user_can_mend_into_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    run = importlib.import_module("pdnla.cli.command").run

    def mistake() -> int:
        raise UserError("one\nsentence")

    for function, status in [(mistake, 2), (lambda: None, 0), (lambda: 1, 1)]:
        with pytest.raises(SystemExit) as caught:
            run("pdnla-x", function)
        assert caught.value.code == status
    assert capsys.readouterr().err == "pdnla-x: one sentence\n"


# --pick-from


@pytest.fixture
def album(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of two grey photographs; photographs/ has a red and a blue mirrored view of them, and others."""
    monkeypatch.setenv("PDNLA_CACHE", str(tmp_path.parent / "cache"))
    Path("album").mkdir()
    Path("photographs/deep").mkdir(parents=True)
    for name, place, colour in (("coffee", "cup.png", RED), ("rocket", "deep/start.jpg", BLUE)):
        grey = Image.fromarray(getattr(data, name)()).convert("L").resize((96, 96))
        grey.save(f"album/{name}.png")
        grey.save(f"photographs/{name}_grey.png")
        tinted = ImageOps.colorize(ImageOps.mirror(grey), "black", "white", mid=colour)
        tinted.save(f"photographs/{place}", quality=95)
    Image.fromarray(data.astronaut()).resize((96, 96)).save("photographs/astronaut.png")
    return Path("album")


def test_each_target_gets_the_picture_in_colour_that_is_most_like_it(command: Command, album: Path) -> None:
    done = command(album, "--pick-from", "photographs")
    assert done.status == 0
    assert [hue(f"album_colorized/{name}.png") for name in ("coffee", "rocket")] == ["red", "blue"]
    assert re.search(r"^picked for coffee\.png: photographs/cup\.png, score 0\.\d{3}$", done.out, re.MULTILINE)
    assert re.search(r"^picked for rocket\.png: photographs/deep/start\.jpg, score 0\.\d{3}$", done.out, re.MULTILINE)
    assert files("album_colorized") == ["coffee.png", "rocket.png"]
    again = command(album, "--pick-from", "photographs")
    assert again.out.splitlines()[-1] == "0 coloured, 2 skipped, 0 failed"
    assert "picked" not in again.out
    assert "describing" not in command(album, "--pick-from", "photographs", "--overwrite").out.replace(
        "describing 1/1", ""
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_broken_pictures_and_dangling_links_to_pick_from_are_named_and_left_out(command: Command, album: Path) -> None:
    Path("photographs/broken.jpg").write_bytes(b"no picture")
    Path("photographs/nowhere.png").symlink_to("absent.png")
    Path("photographs/itself.png").symlink_to("itself.png")
    done = command(album, "--pick-from", "photographs")
    assert done.status == 1
    assert [re.split("[;(]", line)[0] for line in done.err.splitlines()] == [
        "left out: photographs/broken.jpg: is not an image that can be read",
        "left out: photographs/itself.png: cannot be read ",
        "left out: photographs/nowhere.png: there is no such image",
    ]
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 0 failed"
    assert files("album_colorized") == ["coffee.png", "failed.csv", "rocket.png"]
    assert command(album, "--pick-from", "photographs").status == 0  # nothing is picked for


def test_picked_references_are_kept_beside_the_results_and_listed_as_pairs(command: Command, album: Path) -> None:
    given = ("--pick-from", "photographs", "--keep-reference")
    assert command(album, *given).status == 0
    kept = ["coffee.png", "coffee_reference.png", "references.csv", "rocket.png", "rocket_reference.jpg"]
    assert files("album_colorized") == kept
    assert Path("album_colorized/coffee_reference.png").read_bytes() == Path("photographs/cup.png").read_bytes()
    pairs = Path("album_colorized/references.csv")
    assert [[path.resolve() for path in pair] for pair in read_pairs(pairs)] == [
        [Path("album/coffee.png").resolve(), Path("photographs/cup.png").resolve()],
        [Path("album/rocket.png").resolve(), Path("photographs/deep/start.jpg").resolve()],
    ]
    before = pairs.read_text()
    Path("album_colorized/coffee.png").unlink()
    Path("album_colorized/coffee_reference.png").unlink()
    assert command(album, *given).status == 0  # a later run about one of them
    assert sorted(pairs.read_text().splitlines()) == sorted(before.splitlines())
    assert command(album, *given, "--overwrite").status == 0
    assert files("album_colorized") == kept


def test_a_single_picture_keeps_its_reference_beside_it_and_never_picks_results(command: Command, album: Path) -> None:
    for _ in range(2):
        given = ("photographs/coffee_grey.png", "--pick-from", "photographs", "--keep-reference", "--overwrite")
        done = command(*given)
        assert done.status == 0
        assert "picked for coffee_grey.png: photographs/cup.png" in done.out
    new = sorted(path.name for path in Path("photographs").glob("*colorized*"))
    assert new == [f"coffee_grey_colorized{end}" for end in (".png", "_reference.csv", "_reference.png")]
    done = command("photographs/coffee_grey.png", "--pick-from", "photographs", "-o", "photographs/x.png")
    assert "picked for coffee_grey.png: photographs/cup.png" in done.out


def test_a_copy_takes_the_place_of_no_result(command: Command, album: Path) -> None:
    Path("album/rocket.png").rename("album/coffee_reference.png")
    assert command(album, "--pick-from", "photographs", "--keep-reference").status == 0
    assert hue("album_colorized/coffee_reference.png") == "blue"
    assert hue("album_colorized/coffee_reference_2.png") == "red"


def test_a_target_in_the_folder_is_not_its_own_reference(command: Command, album: Path) -> None:
    done = command("photographs/cup.png", "--pick-from", "photographs")
    assert done.status == 0
    assert "picked for cup.png: photographs/" in done.out
    assert "photographs/cup.png" not in done.out


def test_targets_without_a_reference_are_told_why(command: Command, album: Path) -> None:
    Path("greys").mkdir()
    Path("photographs/coffee_grey.png").rename("greys/a.png")
    why = "coffee.png: greys holds no other picture in colour"
    refused(command("album/coffee.png", "--pick-from", "greys"), why)
    done = command(album, "--pick-from", "greys")
    assert done.status == 2
    assert done.out.splitlines()[-1] == "0 coloured, 0 skipped, 2 failed"
    picture("greys/b.png", RED)
    Path("album/broken.png").write_bytes(b"no picture")
    done = command(album, "--pick-from", "greys")
    assert done.status == 1
    assert "failed 1/3 album/broken.png: is not an image that can be read" in done.err
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 1 failed"


def test_one_way_to_say_the_reference(command: Command) -> None:
    picture("a.png")
    picture("many/r.png", RED)
    refused(command("a.png"), "no REFERENCE given", "--pick-from")
    refused(command("a.png", "many/r.png", "--pick-from", "many"), "are both given; leave one of them out")
    refused(command("a.png", "many/r.png", "--keep-reference"), "add --pick-from")
    refused(command("a.png", "--pick-from", "many/r.png"), "is a file; name a folder")
    refused(command("a.png", "--pick-from", "nowhere"), "nowhere: there is no such file or folder")
    Path("a_colorized_reference.csv").write_text("other")
    refused(command("a.png", "--pick-from", "many", "--keep-reference"), "does not hold chosen references")
    assert files() == ["a.png", "a_colorized_reference.csv", "many/r.png"]


def test_pages_of_a_tiff_become_as_many(command: Command) -> None:
    picture("ref.png", BLUE)
    sizes = [(20, 14), (9, 30), (16, 16)]
    clear = Image.new("LA", sizes[1], (90, 120))
    pages = [Image.new("L", sizes[0], 60), clear, Image.fromarray(np.full((16, 16), 40_000, np.uint16))]
    Path("album").mkdir()
    pages[0].save("album/book.tif", save_all=True, append_images=pages[1:], dpi=(300, 300))
    picture("album/one.tif")
    done = command("album", "ref.png")
    assert (done.status, done.out.splitlines()[-1]) == (0, "2 coloured, 0 skipped, 0 failed")
    assert files("album_colorized") == ["book.tif", "one.png"]
    with Image.open("album_colorized/book.tif") as book:
        assert book.n_frames == 3  # type: ignore[attr-defined]
        for number, size in enumerate(sizes):
            book.seek(number)
            assert book.size == size
            assert book.info["dpi"] == pytest.approx((300, 300))
            red, _, blue = np.asarray(book.convert("RGB")).reshape(-1, 3).mean(axis=0)
            assert blue > red + 30
            assert book.mode == ("RGBA" if number == 1 else "RGB")
    assert command("album/book.tif", "ref.png").status == 0
    assert "album/book_colorized.tif" in files()
    refused(
        command("album/book.tif", "ref.png", "-o", "a.png"),
        "has 3 pages, which a.png does not hold",
        "end its name in .tif",
    )
    Path("album/book.tif").rename("book.png")
    refused(command("book.png", "ref.png"), "book.png: is a TIFF of 3 pages; end its name in .tif to have them all")


def test_a_broken_page_is_named_and_leaves_no_half(command: Command) -> None:
    picture("ref.png", BLUE)
    noise = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 40), dtype=np.uint8)) for n in range(2)]
    noise[0].save("book.tif", save_all=True, append_images=noise[1:], compression="tiff_lzw")
    data = bytearray(Path("book.tif").read_bytes())
    with Image.open("book.tif") as book:
        book.seek(1)
        (start,) = book.tag_v2[273]  # type: ignore[attr-defined]
    data[start : start + 900] = bytes([255]) * 900
    Path("book.tif").write_bytes(data)
    refused(command("book.tif", "ref.png"), "book.tif: page 2 cannot be read")
    assert files() == ["book.tif", "ref.png"]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_says_what_it_needs(command: Command, suffix: str) -> None:
    frames = [Image.new("RGB", (20, 14), colour) for colour in (BLUE, RED)]
    frames[0].save(f"clip.{suffix}", save_all=True, append_images=frames[1:])
    picture("still.png", RED)
    sentence = f"clip.{suffix}: is an animation; export its frames into a folder and colour that"
    refused(command(f"clip.{suffix}", "still.png"), sentence)
    assert command("still.png", f"clip.{suffix}").status == 0
    assert hue("still_colorized.png") == "blue"


def test_the_first_frame_of_a_reference_is_said_to_be_taken(command: Command, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (20, 14), colour) for colour in (BLUE, RED)]
    frames[0].save("clip.gif", save_all=True, append_images=frames[1:])
    picture("still.png")
    command("still.png", "clip.gif")
    assert "clip.gif: has several frames; the first is the reference" in caplog.text


def test_pictures_that_are_not_read_are_counted_and_named(command: Command) -> None:
    picture("ref.png", BLUE)
    picture("album/a.png")
    Image.new("L", (20, 14), 120).save("album/b.gif")
    for name in ("c.psd", "d.NEF"):
        Path("album", name).touch()
    done = command("album", "ref.png")
    assert done.status == 1
    assert "album/c.psd: is a picture of a format that is not read (PSD); convert it to PNG" in done.err
    assert "album/d.NEF: is a camera's raw file, which is not read; develop it to TIFF or JPEG" in done.err
    assert done.out.splitlines()[-1] == "2 coloured, 0 skipped, 2 failed"
    assert files("album_colorized") == ["a.png", "b.png", "failed.csv"]


def lightness(rgb: np.ndarray, levels: int) -> np.ndarray:
    linear = rgb.astype(np.float64) / levels
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.212671, 0.715160, 0.072169]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_keep_the_scans_lightness(command: Command, suffix: str) -> None:
    import tifffile
    from torchvision.io import ImageReadMode, decode_png

    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save("scan.tif", dpi=(1200, 1200))
    picture("ref.png", RED)
    assert command("scan.tif", "ref.png", "--depth", 16, "-o", f"result.{suffix}").status == 0
    if suffix == "tif":
        result = tifffile.imread("result.tif")
    else:
        data = torch.frombuffer(bytearray(Path("result.png").read_bytes()), dtype=torch.uint8)
        result = decode_png(data, ImageReadMode.UNCHANGED).to(torch.int32).permute(1, 2, 0).numpy()
    wanted = lightness(np.repeat(values[..., None], 3, axis=-1), 65535)
    assert np.abs(lightness(result, 65535) - wanted).max() < 0.001
    assert result[..., 0].mean() > result[..., 2].mean() + 8000
    with Image.open(f"result.{suffix}") as image:
        assert image.info["dpi"] == pytest.approx((1200, 1200), abs=0.02)
    assert command("scan.tif", "ref.png", "-o", "eight.png").status == 0
    eight = np.asarray(Image.open("eight.png"))
    assert np.abs(lightness(eight, 255) - wanted).max() > 0.1  # what 8 bits cannot tell apart


def test_16_bits_need_a_format_that_holds_them(command: Command) -> None:
    picture("a.png")
    picture("ref.png", RED)
    refused(
        command("a.png", "ref.png", "--depth", 16, "-o", "b.jpg"), "b.jpg: .jpg holds 8 bits per channel", ".png, .tif"
    )
    assert files() == ["a.png", "ref.png"]


def test_what_a_file_says_of_itself_is_kept(command: Command) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 8, "1937:05:06 10:00:00"
    Image.new("L", (20, 14), 99).save("a.jpg", exif=exif, dpi=(300, 600))
    picture("ref.png", RED)
    assert command("a.jpg", "ref.png").status == 0
    with Image.open("a_colorized.png") as image:
        assert image.size == (14, 20)
        assert (image.getexif()[0x0112], image.getexif()[0x0132]) == (1, "1937:05:06 10:00:00")
        assert image.info["dpi"] == pytest.approx((600, 300), abs=0.02)
        assert image.info["icc_profile"][36:40] == b"acsp"


def test_what_alpha_hides_is_no_colour_to_take(command: Command) -> None:
    figure = Image.new("RGB", (64, 64), (0, 255, 0))
    figure.paste(RED, (24, 24, 40, 40))
    alpha = Image.new("L", (64, 64), 0)
    alpha.paste(255, (24, 24, 40, 40))
    figure.putalpha(alpha)
    figure.save("figure.png")
    picture("a.png")
    assert command("a.png", "figure.png").status == 0
    red, green, blue = np.asarray(Image.open("a_colorized.png").convert("RGB")).reshape(-1, 3).mean(axis=0)
    assert red > green + 5
    assert abs(green - blue) < 2


def test_the_reference_that_fits_gives_the_colours(command: Command) -> None:
    """Of a network that takes one reference, each target gets the one of several that shows what it shows."""
    Path("album").mkdir()
    guides = []
    for name, colour in (("coffee", RED), ("rocket", BLUE)):
        grey = Image.fromarray(getattr(data, name)()).convert("L").resize((96, 96))
        grey.save(f"album/{name}.png")
        ImageOps.colorize(ImageOps.mirror(grey), "black", "white", mid=colour).save(f"{name}_in_colour.png")
        guides.append(f"{name}_in_colour.png")
    assert command("album", *guides).status == 0
    assert [hue(f"album_colorized/{name}.png") for name in ("coffee", "rocket")] == ["red", "blue"]
    assert command("album/coffee.png", *guides[::-1], "-o", "one.png").status == 0
    assert hue("one.png") == "red"


def test_several_references_may_lie_in_folders(command: Command) -> None:
    picture("album/a.png")
    for name, colour in (("album/refs/x.png", RED), ("album/refs/y.png", RED), ("z.png", RED)):
        picture(name, colour)
    done = command("album", "album/refs", "z.png")
    assert done.status == 0
    assert files("album_colorized") == ["a.png"]
    assert hue("album_colorized/a.png") == "red"
    refused(command("album", "album/refs", "z.png", "-o", "album/refs"), "is where the pictures come from")
    refused(command("album", "album/refs", "none.png"), "none.png: there is no such file")
    refused(command("album", "z.png", "z.png", "--pick-from", "album"), "are both given")
    refused(command("album/a.png", "z.png", "album/refs", "-o", "z.png", "--overwrite"), "is a target or a reference")


def test_all_of_a_folder_colour_a_single_picture_whose_name_none_has(command: Command) -> None:
    picture("refs/x.png", RED)
    picture("refs/y.png", RED)
    done = command(picture("a.png"), "refs")
    assert done.status == 0
    assert "no reference has the name of a.png; all 2 give colours" in done.err
    assert hue("a_colorized.png") == "red"

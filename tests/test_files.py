"""Files are written whole or not at all, and what processes do alone they do one after the other."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import piped

from pdnla import UserError
from pdnla.files import lock, remove_stale_temporaries, replacing


def test_a_new_file_appears_whole_in_a_folder_made_for_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("all")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [(p.name, p.read_text()) for p in (tmp_path / "new").iterdir()] == [("a.txt", "all")]


@pytest.mark.parametrize("error", [RuntimeError("bug"), OSError(28, "No space left"), OSError(5, "I/O error")])
def test_a_failure_leaves_the_old_file_and_nothing_else(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    expected = UserError if isinstance(error, OSError) else RuntimeError

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(expected):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_full_disk_and_a_place_that_is_no_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    def full() -> None:
        with replacing(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    def below_a_file() -> None:
        with replacing(tmp_path / "file" / "a.txt"):
            pass

    with pytest.raises(UserError, match=r"a\.txt: the disk is full"):
        full()
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(.*choose another place"):
        below_a_file()


def test_a_process_waits_for_another_and_not_for_one_that_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.lock"
    program = "import sys; from pdnla.files import lock\nwith lock(sys.argv[1]): print('in', flush=True); input()"
    command = [sys.executable, "-c", program, str(file)]
    with piped(command, stdin=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        with piped(command, stdin=subprocess.PIPE) as second:
            time.sleep(0.5)
            assert second.poll() is None
            first.kill()
            assert second.communicate("\n")[0] == "in\n"
    with lock(file):
        pass


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be written"), lock(tmp_path / "file" / "a.lock"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights or limits")
def test_permissions_are_kept_and_file_systems_that_refuse_them_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with replacing(path) as temporary:
        temporary.write_text("newer")
    assert path.read_text() == "newer"


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("a" * 255, "a" * 251 + ".png", "a." + "b" * 253):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("all")
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(UserError, match="its name is too long"), replacing(tmp_path / ("a" * 256)):
        pass
    assert len(list(tmp_path.iterdir())) == 3


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    program = (
        "import sys; from pdnla.files import replacing\nwith replacing(sys.argv[1]): print('in', flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.txt")]
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("half")
        with piped(command, stdin=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "in\n"
            remove_stale_temporaries(tmp_path)
            assert len(list(tmp_path.iterdir())) == 2
            writer.kill()
        remove_stale_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [temporary]
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]

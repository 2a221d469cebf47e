"""``pdnla-eval``, as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from pdnla import PDNLA
from pdnla.cli.evaluate import main
from pdnla.weights import save_weights

Command = Callable[[list[str]], int]

FAST = [
    "size=32",
    "device=cpu",
    "precision=float32",
    "baselines=[grey,mean_chroma]",
    "measures.lpips=false",
    "measures.fid=false",
    "hydra.run.dir=run",
]


@pytest.fixture
def evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_command: Callable[[Callable[[], None], list[str]], int]
) -> Command:
    """Return what runs the command in a folder with photographs, a grey picture and weights."""
    album = tmp_path / "album"
    album.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()).resize((72, 64)).save(album / f"{name}.png")
    (tmp_path / "other").mkdir()
    Image.new("L", (64, 64), 90).save(tmp_path / "other" / "grey.png")
    torch.manual_seed(0)
    save_weights(PDNLA(4), tmp_path / "net.safetensors", "a test")
    monkeypatch.chdir(tmp_path)

    return lambda arguments: hydra_command(main, ["pdnla-eval", *FAST, *arguments])


def test_pseudo_pairs_leave_a_table_figures_and_a_page(
    evaluate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(["protocol.root=album", "protocol.size=48", "weights=net.safetensors"]) == 0
    shown = capsys.readouterr().out
    assert "evaluating 2/2 pictures" in shown
    for word in ("net", "grey", "mean_chroma", "truth", "PSNR", "CIEDE2000"):
        assert word in shown
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert content["pictures"] == 2
    assert content["configuration"]["protocol"]["size"] == 48
    assert set(content["figures"]) == {"astronaut.png", "coffee.png"}
    assert content["versions"]["pdnla"].startswith("pdnla ")
    assert (tmp_path / "run" / "report.html").read_text().count("<article") == 2
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / ".pictures").exists()


def test_names_in_the_table_are_no_markup(
    evaluate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.safetensors").rename(tmp_path / "a[bold]b.safetensors")
    given = ["protocol.size=48", "baselines=[]", "report.pictures=0", "protocol.count=1", "hydra.run.dir='x[/y]'"]
    assert evaluate(["protocol.root=album", "weights='a[bold]b.safetensors'", *given]) == 0
    shown = capsys.readouterr().out
    assert "a[bold]b" in shown
    assert "x[/y]/report.html" in shown


def test_the_same_command_leaves_the_same_files(evaluate: Command, tmp_path: Path) -> None:
    command = ["protocol.root=album", "protocol.size=48", "name=one"]
    assert evaluate(command) == 0
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("metrics.json", "metrics.csv", "report.html")}
    assert evaluate(command) == 0
    for name, content in before.items():
        assert (tmp_path / "run" / name).read_bytes() == content, name


@pytest.mark.slow
def test_pairs_and_video_run_with_what_is_published(evaluate: Command, tmp_path: Path) -> None:
    given = ["protocol.targets=album", "protocol.references=album/coffee.png", "protocol.published=album"]
    assert evaluate(["protocol=pairs", *given, "weights={mine: net.safetensors}"]) == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(content["means"]) == ["mine", "published", "grey", "mean_chroma"]
    assert evaluate(["protocol=video", "protocol.frames=album", "protocol.reference=album/coffee.png"]) == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "flicker" in content["figures"]["coffee.png"]["grey"]


@pytest.mark.slow
def test_a_suite_is_one_table_and_one_page_of_the_parts_that_are_given(
    evaluate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["protocol.photographs=album", "protocol.square=32", "protocol.counts.partial=1"]
    assert evaluate(["protocol=suite", *given, "weights=net.safetensors"]) == 0
    output = capsys.readouterr()
    assert "protocol.views is not given; its part of the suite is left out" in output.out + output.err
    for word in ("warped", "partial", "missing", "net", "mean_chroma"):
        assert word in output.out
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: part["pictures"] for name, part in content["parts"].items()} == {"warped": 2, "partial": 1}
    assert content["parts"]["partial"]["means"]["grey"]["chroma_error_over_grey_missing"] == pytest.approx(1, abs=0.01)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<article") == 3
    assert page.count("<section") == 2


BAD = [
    ([], "protocol.root is not set and has no default; add protocol.root=..."),
    (["protocol.root=absent"], "absent: there is no such folder"),
    (["protocol.root=other"], "none of its 1 pictures can be used; the first: other/grey.png: is grey"),
    (["protocol=none"], "protocol=none does not exist; protocol can be pairs, pseudo, suite, video"),
    (["protocol=pairs"], "give protocol.targets=... and protocol.references=..."),
    (["protocol=suite"], "protocol=suite: there is nothing to evaluate; give some of protocol.views=FOLDER"),
    (["protocol=suite", "protocol.views=album"], "protocol.views=album: has no folder target/"),
    (
        ["protocol=pairs", "protocol.targets=album", "protocol.references=other"],
        "no reference has the name of a target",
    ),
    (
        ["protocol.root=album", "weights=absent.ckpt"],
        "weights absent.ckpt: there is no such file; check the path, or use one of",
    ),
    (["protocol.root=album", "baselines=[gray]"], "baselines: gray is not known; choose from grey, mean_chroma"),
    (["protocol.root=album", "baselines=[]"], "there is nothing to evaluate; give weights=FILE"),
    (["protocol.root=album", "devices=0"], "devices=0: must be a whole number of at least 1"),
    (["protocol.root=album", "protocol.count=0"], "protocol.count=0: must be a whole number of at least 1, or null"),
    (["protocol.root=album", "protocol.seed=1.5"], "protocol.seed=1.5: must be a whole number from 0 to 4294967295"),
    (["protocol.root=album", "protocol.size=8"], "protocol.size=8: must be a whole number of at least 16, or null"),
    (["protocol.root=album", "report.side=big"], "report.side=big: must be a whole number of at least 16"),
    (["protocol.root=album", "weights=[]", "baselines=5"], "baselines=5: must be a list [...], each text"),
    (["protocol.root=album", "weights={a:1}"], "weights.a=1: must be text, as NAME: TEXT"),
    (["protocol=video", "protocol.frames=album", "protocol.count=-1"], "protocol.count=-1: must be a whole number"),
    (["protocol.root=album", "device=tpu"], "device tpu is not available"),
    (["protocol.root=album", "measures.lpips=perhaps"], "measures.lpips=perhaps: must be auto, true or false"),
    (["protocol.root=album", "size=large"], "size=large: must be a whole number from 16 to 8192, or native"),
    (["protocol.root=album", "size=8"], "size=8: must be a whole number from 16 to 8192, or native"),
    (["protocol.root=album", "precision=float8"], "precision=float8: must be auto, float32 or bfloat16"),
    (["protocol.root=album", "weights=album"], "weights album: is a folder without model.safetensors"),
    (["protocol.root=album", "sise=3"], "sise is not an option; the nearest is size=..."),
    (["a b"], "see pdnla-eval --help"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(a) or "nothing" for a, _ in BAD])
def test_mistakes_get_one_sentence_and_status_2(
    arguments: list[str], sentence: str, evaluate: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(arguments) == 2
    errors = capfd.readouterr().err
    last = errors.strip().splitlines()[-1]
    assert last.startswith("pdnla-eval: ")
    assert sentence in last
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "report.html").exists()


def test_torchrun_is_not_needed(
    evaluate: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert evaluate(["protocol.root=album"]) == 2
    assert "do not use torchrun or srun" in capfd.readouterr().err

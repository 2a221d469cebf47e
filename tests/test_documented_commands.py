"""Every command and every block of Python of the README and of the pages in docs/ is run, as readers type it.

A page is a test: what it documents runs in its order, in a folder with the files that the pages name. A command that is
on several pages runs on the first of them. What is added so that a command ends in a second or two, and the few
commands that are not run, are in the tables below; a command in none of them runs exactly as it is written.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from clips import av, pan, write_clip
from documented import COMMANDS, ENTRIES, PAGES, PROJECT, SNIPPETS, Snippet, snippets
from PIL import Image
from processes import start
from torch.distributed.run import parse_args

from pdnla.evaluation.faces import PAIRS
from pdnla.files import cache_folder
from pdnla.pretrained import find_weights

NOT_RUN = {
    r"pip install .*": "needs a network; tests/test_packaging.py builds the package",
    r"hf auth login": "asks for a password of huggingface.co",
    r"wandb (leet|sync).*": "W&B's own program: shows a run until a key is pressed, and uploads it",
    r"pdnla-train .*submitit_slurm.*": "needs a Slurm cluster, and a plugin that is no dependency",
    r"git apply": "tests/test_documentation.py applies the diffs of the pages",
    r"python scripts/benchmark.py --rounds 2 .*": "make bench runs the same, with its three rounds",
    r"make docs": "tests/test_documentation.py builds the site",
}
"""Commands that are not run, as patterns, and why."""

PYTHON_NOT_RUN = {
    'network.push_to_hub("owner/name")': "needs the Hub; tests/test_hub.py has the same with the Hub's answers",
}
"""Blocks of Python that are compiled and not run, by a line in them, and why."""

PLACES = {
    "-m ...": "-m seed=0,1",
    "--weights W": "--weights pdnla_tiny",
    "=/data/": "=data/",
    " /data/": " data/",
    "data.root=...": "data.root=photographs",
    "weights=...": "weights=pdnla_tiny",
    "PASSWORD=...": "PASSWORD=password",
    "pdnla-export pdnla_tiny": "pdnla-export small.safetensors",  # exporting the network takes minutes
}
"""What stands for a reader's own, and what it is here; ``runs/MODEL/DATE`` is the newest run."""

ALWAYS = {
    "pdnla-colorize": "--size 64 --overwrite --weights pdnla_tiny",
    "pdnla-eval": "size=32 device=cpu measures.lpips=false measures.fid=false baselines=[grey]",
    "pdnla-pairs": "--workers 0",
    "pdnla-train": "trainer.max_steps=1 trainer.accelerator=cpu trainer.strategy=auto trainer.precision=32-true"
    " trainer.enable_progress_bar=false data.size=32 data.batch_size=2 data.workers=0 data.validation_count=1",
    "pdnla-web": "--no-browser --port 0",
}
"""Options of each command of a program, before those of the page, which therefore count where both name one."""

EXPLAIN = ("--help", "--about-weights", "--install-completion", "--cfg", "-sc")
"""Options of commands that only print an explanation, and get none of those of ALWAYS."""

_STEP = "trainer.max_steps=1"
_SMALL = "model.channel=4"
_ONE_DEVICE = "trainer.devices=1 trainer.num_nodes=1"
_IMAGENET = (
    f"{_ONE_DEVICE} {_SMALL} loss.terms.correspondence.side=32 loss.terms.contextual.levels=[1,0,0,0]"
    " loss.terms.adversarial.critic.width=4 loss.terms.adversarial.critic.blocks=3 loss.terms.cooccurrence.size=8"
    " loss.terms.cooccurrence.critic.width=4 loss.terms.cooccurrence.critic.blocks=1"
)
_PAIRS = "--roots many/ --count 2 --validation 1"
_FEW = "--only network --sizes 64 --channels 32 --variants 'eager float32' --rounds 1"
_ONE_FILE = "-p no:cacheprovider -n 0 tests/test_packaging.py -k version"

ADDED = {
    # The default weights once; the other pictures have pdnla_tiny's, which take a third of the time.
    "pdnla-colorize grey.jpg reference.jpg": "--weights default",
    # A process for each device takes ten seconds to start; tests/inference/test_many_devices.py has two.
    "pdnla-colorize album/ still.jpg -o coloured/ --devices 4": "--devices 1",
    "pdnla-eval protocol=video 'protocol.frames=[a/,b/]' devices=2": "devices=1",
    "pdnla-eval protocol=suite protocol.views=v/ protocol.faces=Faces/ protocol.photographs=p/ protocol.published=q/"
    " devices=2": "devices=1 protocol.counts.faces=1 protocol.counts.warped=1 protocol.counts.partial=1",
    "pdnla-train -m ... hydra/launcher=joblib hydra.launcher.n_jobs=2": f"{_SMALL} hydra.launcher.n_jobs=1",
    # Steps, widths and devices.
    "pdnla-train -m model=pdnla_tiny,pdnla_small optim.lr=1e-3,5e-4 trainer.max_steps=500"
    " trainer.val_check_interval=100": f"{_STEP} {_SMALL}",
    "pdnla-train -m hparams_search=optuna model=pdnla_tiny trainer.max_steps=500"
    " trainer.val_check_interval=100": f"{_STEP} trainer.val_check_interval=1 hydra.sweeper.n_trials=1",
    "pdnla-train model=pdnla_tiny data=folder data.root=~/photographs trainer.max_time=00:00:40:00"
    " trainer.max_steps=1700 schedule.warmup=100 trainer.val_check_interval=125": _STEP,
    "pdnla-train model=pdnla_tiny experiment=paired data=folder data.root=... schedule.warmup=100"
    " trainer.max_steps=1900 trainer.max_time=00:01:20:00": _STEP,
    "pdnla-train ckpt_path=runs/MODEL/DATE model=pdnla_tiny data=folder data.root=~/photographs": "trainer.max_steps=2",
    "pdnla-train data=imagenet_shards data.root=shards/": _SMALL,
    "pdnla-train data=pairs data.pairs_file=photographs/pairs.csv loss=hybrid": _SMALL,
    "pdnla-train data=folder data.root=photographs/ data.validation_pairs=photographs/pairs.csv": _SMALL,
    "pdnla-train model=pdnla data=imagenet data.root=/data/imagenet trainer=ddp"
    " trainer.devices=4": f"{_ONE_DEVICE} {_SMALL}",
    "pdnla-train experiment=imagenet data.root=/data/ILSVRC trainer.devices=8": _IMAGENET,
    "sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 scripts/slurm_train.sh experiment=imagenet"
    " data.root=/data/ILSVRC": _IMAGENET,
    "HEAD=node0 NODES=2 DEVICES=8 RUN=runs/large scripts/torchrun_train.sh experiment=imagenet"
    " data.root=/data/ILSVRC": _IMAGENET,
    "python scripts/demo.py": f"{_STEP} data.workers=0",
    "python scripts/train_metric.py metric.safetensors --roots photographs/ --kept cells/": "--steps 1 --threads 1",
    "python scripts/train_prior.py informed.safetensors --roots photographs/ --kept places/"
    " --pairs pairs/": "--steps 2",
    # One of 97 photographs is for validation, and a pair takes two.
    "python scripts/keep_pairs.py pairs/ --roots photographs/": _PAIRS,
    "python scripts/keep_pairs.py pairs/ --roots photographs/ --weights metric.safetensors": _PAIRS,
    # Hours of measuring.
    "pdnla-eval protocol.root=photographs/ weights=runs/MODEL/DATE/last.ckpt": "protocol.count=1",
    "python scripts/benchmark.py --out benchmark": _FEW,
    "python scripts/benchmark.py --only film": "--rounds 1 --frames 1",
    "python scripts/film_showcase.py film.jpg": "--frames 2",
    "python scripts/loading_speed.py photographs/": "--rounds 1 --workers 0 --size 32",
    # What `make test` runs, of a file.
    "ruff check .": "--no-cache",
    "ruff format --check .": "--no-cache",
    "mypy": "--cache-dir=/dev/null --follow-imports=skip --no-site-packages src/pdnla/errors.py",
    "python -m pytest -n auto": _ONE_FILE,
    'pytest -m "not slow"': _ONE_FILE,
    "pytest tests/network/test_golden.py": "-p no:cacheprovider -n 0",
    # What running text leaves out.
    "pdnla-colorize --weights last.ckpt": "grey.jpg reference.jpg",
    "pdnla-colorize --no-accelerate": "grey.jpg reference.jpg",
    "pdnla-eval protocol=suite": "protocol.views=v/",
    # Under the name that the next commands give.
    "pdnla-export pdnla_tiny --format onnx": "-o pdnla_tiny.onnx",
    # At a free port; without pip, which takes seconds.
    "python -m http.server --directory site": "0",
    "tensorboard --logdir runs": "--port 0",
    "python3 -m venv .venv": "--without-pip",
}
"""What is added after a command, by its text or that of a line of make's rule, and why."""

FIRST = {
    "docs/colouring.md": [
        "pdnla-prepare /data/imagenet/train shards/",
        "pdnla-pairs album/ --references photographs/ -o pairs.csv --count 5",
    ],
    "docs/evaluation.md": [
        "pdnla-train model=pdnla_tiny data=folder data.root=~/photographs",
        "pdnla-pairs album/ --references photographs/ -o pairs.csv --count 5",
    ],
    "docs/sharing.md": ["pdnla-train model=pdnla_tiny data=folder data.root=~/photographs"],
}
"""Commands of other pages whose results a page takes for granted."""

SERVES = ("pdnla-web", "python -m http.server", "tensorboard")
"""Commands that serve until Ctrl-C, which they get when they have printed their address."""

NEEDS = {
    r"film|frames": "av",
    r"pdnla-web": "gradio",
    r"pdnla-export|\.onnx": "onnxruntime",
    r"joblib|optuna": "hydra_plugins",
    r"tensorboard": "tensorboard",
    r"ruff": "ruff",
    r"mypy": "mypy",
}
"""Commands, as patterns, that are left out where a package of an extra is missing."""

WRITTEN = {
    "README.md": "demo/comparison.png grey_colorized.png coloured/coffee.png album_colorized/coffee.png",
    "docs/clusters.md": "shards/shard-000000.tar runs/slurm_7/last.ckpt runs/large/last.ckpt",
    "docs/colouring.md": "result.jpg",
    "docs/exporting.md": "pdnla_half.onnx",
    "docs/index.md": "comparison.jpg",
    "docs/performance.md": "benchmark/performance.md",
    "docs/references.md": "album_colorized/references.csv pairs.csv",
    "docs/sharing.md": "my_network/config.json pdnla.safetensors mine.safetensors mine_half.safetensors",
    "docs/supervision.md": "photographs/pairs.csv",
    "docs/training.md": "metric.safetensors mixed.safetensors informed.safetensors",
    "docs/web.md": "result.png",
}
"""Files that are there after the commands of a page."""


def test_the_tables_hold_nothing_that_is_not_documented() -> None:
    texts = {command.text for command in COMMANDS}
    texts |= {line for text in texts if text.startswith("make ") for line in rule(text)}
    assert set(ADDED) <= texts
    assert {command for commands in FIRST.values() for command in commands} <= texts
    assert ALWAYS.keys() <= ENTRIES.keys()
    for pattern in (*NOT_RUN, *NEEDS):
        assert any(re.search(pattern, text) for text in texts), pattern
    for place in PLACES:
        assert any(place in text for text in texts), place
    for program in SERVES:
        assert any(text.startswith(program) for text in texts), program
    for line in PYTHON_NOT_RUN:
        assert any(line in snippet.text for snippet in SNIPPETS if snippet.language == "python"), line
    assert {snippet.language for snippet in SNIPPETS} <= {"bash", "python", "yaml", "csv", "diff", "text", "bibtex"}


def test_a_program_that_is_not_known_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="pdnla-paint is no command"):
        Reader(tmp_path).run("pdnla-paint a.jpg")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the pages show a POSIX shell")
@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_what_a_page_documents_runs(page: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = page.relative_to(PROJECT).as_posix()
    folder = tmp_path / "reader"
    shutil.copytree(files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    reader = Reader(folder)
    for command in FIRST.get(name, []):
        reader.run(command)
    left_out = False
    for snippet in {snippet.text: snippet for snippet in snippets(page)}.values():
        if snippet.language != "bash":
            reader.take(snippet)
        elif page_of(snippet.text) == name and not any(re.fullmatch(pattern, snippet.text) for pattern in NOT_RUN):
            missing = [
                package
                for pattern, package in NEEDS.items()
                if re.search(pattern, snippet.text) and find_spec(package) is None
            ]
            left_out |= bool(missing)
            if not missing:
                reader.run(snippet.text)
    if not left_out:
        assert not [file for file in WRITTEN.get(name, "").split() if not (folder / file).is_file()]


def page_of(command: str) -> str:
    """Return the first page that has a command."""
    return next(found.page for found in COMMANDS if found.text == command)


def rule(command: str) -> list[str]:
    """Return what make runs for a command, where its environment is installed."""
    dry = ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/.installed", *shlex.split(command)[1:]]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(dry, cwd=PROJECT, env=outside, capture_output=True, text=True, check=True)
    return [line.removeprefix(".venv/bin/") for line in done.stdout.splitlines()]


class Reader:
    """Does what a page says, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "HOME": str(folder),
            "PDNLA_CACHE": str(cache_folder()),  # which holds compiled convolutions
            "PYTHONPATH": str(folder / "installed"),
        }
        self.names: dict[str, Any] = {name: torch.zeros(1, 3, 32, 48) for name in ("target", "reference")}

    def take(self, snippet: Snippet) -> None:
        """Run a block of Python after those before it; one that begins with a file's name is written to this file."""
        if file := re.match(r"# ([\w/]+\.(?:py|yaml))\n", snippet.text):
            path = self.folder / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text, encoding="utf-8")
        elif snippet.language == "python":
            code = compile(snippet.text, snippet.page, "exec")
            if not any(line in snippet.text for line in PYTHON_NOT_RUN):
                exec(code, self.names)

    def run(self, command: str) -> str:
        """Run a command as it stands on the page, with what the tables add, and return what it prints."""
        words = shlex.split(f"{self.filled(command)} {ADDED.get(command, '')}")
        variables = dict(self.environment)
        while found := re.fullmatch(r"([A-Z_]+)=(.*)", words[0]):
            variables[found[1]] = found[2]
            del words[0]
        program, *arguments = words
        if program == "srun":
            variables |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1"}
            program, *arguments = arguments
        if program == "make":
            return "".join(self.run(line) for line in rule(command))
        if program == "eval":
            (inner,) = re.findall(r"\$\((.*)\)", arguments[0])
            return self.shell(f"eval {shlex.quote(self.run(inner))}")
        if program == "source":
            return self.shell(shlex.join(words))
        if program == "sbatch":
            return self.submit(arguments)
        if program == "scripts/torchrun_train.sh":
            return self.launch(words, variables)
        if program in ("ruff", "mypy"):
            return self.process([sys.executable, "-m", *words], PROJECT)
        if program in ALWAYS and not set(EXPLAIN) & set(arguments):
            few = shlex.split(ALWAYS[program])
            overrides = [number for number, word in enumerate(arguments) if not word.startswith("-")]
            place = 0 if few[0].startswith("--") else overrides[0]  # Hydra's own options come first
            arguments[place:place] = few
        if program in ("pip", "pytest", "tensorboard"):
            module = "tensorboard.main" if program == "tensorboard" else program
            program, arguments = "python", ["-m", module, *arguments]
        elif program in ("python", "python3") and arguments[0] == "-m":
            program = "python"
        elif program == "python":
            program, *arguments = arguments
        else:
            assert program in ENTRIES, f"{program} is no command that this test knows"
        folder = PROJECT if "pytest" in arguments else self.folder
        run = start(program, arguments, folder, **variables)
        if re.sub(r"^([A-Z_]+=\S* )+", "", command).startswith(SERVES):
            run.wait_until(lambda: "http://" in run.output)
            own = program in ENTRIES
            run.send(signal.SIGINT if own else signal.SIGKILL, group=True)  # others may end as they like
            return run.finish(130 if own else -signal.SIGKILL)
        return run.finish()

    def filled(self, command: str) -> str:
        """Return a command with what this folder has for a reader's own."""
        for place, here in PLACES.items():
            command = command.replace(place, here)
        if re.search(r"runs/\w+/DATE", command):
            runs = [file.parent for file in self.folder.glob("runs/*/*/last.ckpt")]
            newest = max(runs, key=lambda path: path.stat().st_mtime_ns)
            command = re.sub(r"runs/\w+/DATE", newest.relative_to(self.folder).as_posix(), command)
        return command

    def submit(self, arguments: list[str]) -> str:
        """Run a script as Slurm does, with a srun that prints what it would start; start it once."""
        options = dict(word.removeprefix("--").split("=") for word in arguments if word.startswith("--"))
        variables = {
            "PATH": f"{self.stand_in('srun').parent}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_NNODES": options["nodes"],
            "SLURM_NTASKS_PER_NODE": options["ntasks-per-node"],
        }
        script = shlex.join(word for word in arguments if not word.startswith("--"))
        return self.run(shlex.join(self.shell(script, variables).splitlines()))

    def launch(self, words: list[str], variables: dict[str, str]) -> str:
        """Run the script for torchrun with a Python that prints its command line, and start a process of it."""
        printed = self.shell(shlex.join(words), {**variables, "PYTHON": str(self.stand_in("python"))})
        module, launcher, *arguments = printed.splitlines()
        assert (module, launcher) == ("-m", "torch.distributed.run")
        options = parse_args(arguments)
        assert (options.nnodes, options.nproc_per_node) == (variables["NODES"], variables["DEVICES"])
        assert (options.rdzv_endpoint, options.module) == (variables["HEAD"], True)
        (program,) = [name for name, module in ENTRIES.items() if module == options.training_script]
        return self.run(shlex.join([program, *options.training_script_args]))

    def stand_in(self, name: str) -> Path:
        """Return a program that prints its arguments, each on a line."""
        program = self.folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
        return program

    def shell(self, script: str, variables: dict[str, str] | None = None) -> str:
        return self.process(["bash", "-ec", script], self.folder, variables or {})

    @staticmethod
    def process(command: list[str], folder: Path, variables: dict[str, str] | None = None) -> str:
        environment = {**os.environ, **(variables or {})}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


SMALL = '''
"""A model that is exported in seconds."""

import torch
from torch import Tensor, nn

from pdnla.models import register
from pdnla.network import Colorization
from pdnla.weights import save_weights


@register("small")
class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 3, 3, padding=1)

    def encode_reference(self, reference: Tensor) -> Tensor:
        return reference

    def forward(self, target: Tensor, reference: Tensor) -> Colorization:
        mean = reference.mean(dim=(2, 3), keepdim=True).expand_as(target)
        mid = self.layer(torch.cat([target, mean], dim=1))
        return Colorization(mid, torch.tanh(mid + target))


if __name__ == "__main__":
    save_weights(Small(), "small.safetensors", "a test's")
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, published_file: Path) -> Path:
    """Return a folder with the files that the pages name: small pictures, a film, weights, and a checkout."""
    import skimage

    folder = tmp_path_factory.mktemp("files")
    data = Path(skimage.__file__).parent / "data"
    views: dict[str, list[Image.Image]] = {}
    for name in ("coffee", "chelsea", "astronaut"):
        photograph = Image.open(data / f"{name}.png").convert("RGB")
        boxes = [(40 * step, 20 * step, 40 * step + 320, 20 * step + 240) for step in range(3)]
        views[name] = [photograph.crop(box).resize((96, 72)) for box in boxes]

    def save(path: str, picture: Image.Image) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / path)

    def save_two(place: str, step: int, grey: bool = False) -> None:
        for name in ("coffee", "chelsea"):
            save(f"{place}/{name}.png", views[name][step].convert("L") if grey else views[name][step])

    save("grey.jpg", views["coffee"][0].convert("L"))
    for name in ("reference", "still", "still1", "house"):
        save(f"{name}.jpg", views["coffee"][1])
    for name in ("still2", "garden"):
        save(f"{name}.jpg", views["chelsea"][1])
    save("references/cup.png", views["coffee"][2])
    for place in ("album", "frames", "t", "v/target", "q/target"):
        save_two(place, 0, grey=True)
    for place in ("o", "p", "held_out", "v/truth", "bsds500/val"):
        save_two(place, 0)
    for place in ("references", "r", "v/reference", "q/reference", "q/published"):
        save_two(place, 1)
    for place in ("photographs", "caltech101", "data/imagenet/train", "data/ILSVRC/train"):
        for name in views:
            for step in range(2):
                save(f"{place}/{name}/{step}.png", views[name][step])
    for place in ("a", "b", "colour"):
        for step in range(3):
            save(f"{place}/{step}.png", views["coffee"][step])
    for number in range(6):
        save(f"many/{number}.png", views["coffee" if number % 5 else "chelsea"][number % 3])
    for pair in PAIRS:
        for number in (pair.target, pair.reference):
            save(f"Faces/image_{number:04d}.jpg", views["astronaut"][number % 3])
    if av is not None:
        write_clip(folder / "film.mp4", pan(3), codec="mpeg4")

    for name in ("PDNLA.pt", "b.ckpt", "last.ckpt"):
        shutil.copy(published_file, folder / name)
    shutil.copy(find_weights("pdnla_tiny"), folder / "a.safetensors")
    declared = folder / "installed" / "small-1.dist-info" / "entry_points.txt"
    declared.parent.mkdir(parents=True)
    declared.write_text("[pdnla.models]\nsmall = small:Small\n")
    (folder / "installed" / "small.py").write_text(SMALL)
    start(str(folder / "installed" / "small.py"), [], folder).finish()

    for name in ("conf", "docs", "scripts", "src", "tests", "Makefile", "mkdocs.yml", "pyproject.toml"):
        (folder / name).symlink_to(PROJECT / name)
    venv.create(folder / ".venv", symlinks=True)
    (folder / "site").mkdir()
    return folder

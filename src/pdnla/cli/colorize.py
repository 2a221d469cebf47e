"""``pdnla-colorize``: colour a photograph, or a folder of them, after a reference."""

import enum
import itertools
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from pdnla.cli._run import describing, progress_bar, run
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.images.io import read_image
from pdnla.inference.album import COPY, Job, Plan, colour, plan_jobs
from pdnla.pretrained import BUNDLED, card, find_weights

COMMAND = "pdnla-colorize"
_SIDES = (16, 8192)  # at which the network may see pictures

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


class Precision(str, enum.Enum):
    """The numbers the network computes in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def main() -> None:
    """Run the command with the arguments it was started with."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))


def _about_weights(asked: bool) -> None:
    if asked:
        print(card(), end="")
        raise typer.Exit


@app.command()
def colorize(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Picture to colour, or a folder.")],
    reference: Annotated[
        Path | None,
        typer.Argument(
            metavar="REFERENCE",
            help="Picture to take the colours from, or a folder with one for each target, matched by name.",
            show_default=False,
        ),
    ] = None,
    pick_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead of REFERENCE: for each target, the picture in colour in FOLDER that is most like it.",
            show_default=False,
        ),
    ] = None,
    keep_reference: Annotated[
        bool,
        typer.Option(
            "--keep-reference",
            help="Copy what --pick-from chose beside each result, and list it with its score in a file of pairs.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where the result goes: a file, whose suffix says the format, or a folder. "
            "Without it: TARGET_colorized.png or TARGET_colorized/ beside the target.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            "-w",
            help="Weights of pdnla-train or pdnla-convert, or a name of those that come with the package:"
            " default, pdnla_semantic, pdnla_tiny.",
        ),
    ] = "default",
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="The network works on about SIZE × SIZE pixels (16 to 8192), or on each picture at its own size if"
            " this is native; the result has the target's own size.",
        ),
    ] = "512",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is bfloat16 where the hardware computes in it, else float32.")
    ] = Precision.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of like shape coloured at a time.")] = 1,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network, for many pictures on a GPU; a CPU is faster without. The first time takes"
            " minutes and is kept.",
        ),
    ] = False,
    about_weights: Annotated[
        bool,
        typer.Option(
            "--about-weights",
            help="Say what the weights are that come with the package, and leave.",
            callback=_about_weights,
            is_eager=True,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Colour again where there is a result already.")
    ] = False,
) -> int:
    """Colour TARGET with the colours of REFERENCE, keeping its size and its light and dark as they are.

    One picture:

        pdnla-colorize old.jpg similar.jpg

    A folder, each picture after the one of the same name in references/:

        pdnla-colorize album/ references/ -o coloured/

    A folder, each picture after the most similar of many:

        pdnla-colorize album/ --pick-from photographs/
    """
    side = _side(size)
    source = _source(reference, pick_from, keep_reference)
    if not find_weights(weights).is_file():
        raise UserError(
            f"--weights {weights}: there is no such file; check the path, or use one of {', '.join(BUNDLED)}"
        )
    plan = plan_jobs(target, source, out, pick=pick_from is not None)
    if plan.remark:
        print(f"{COMMAND}: {plan.remark}", file=sys.stderr)
    total = len(plan.jobs) + len(plan.unmatched)
    waiting: list[Job] = []
    skipped: list[Job] = []
    for job in plan.jobs:
        (waiting if overwrite or not job.result.exists() else skipped).append(job)
    unmatched = plan.unmatched
    kept = KeptReferences(plan, overwrite) if keep_reference and waiting else None
    if pick_from is not None and waiting:
        waiting, unmatched = pick_references(waiting, plan.candidates, pick_from, device)
    with Progression(total, alone=not target.is_dir()) as progression:
        for sentence in unmatched:
            progression.failed(sentence)
        for job in skipped:
            progression.skipped(job)
        if waiting:
            from pdnla.inference.colorizer import Colorizer

            colorizer = Colorizer(weights, device=device, precision=precision.value, size=side, compile=compile_)
            try:
                for job in colour(colorizer, waiting, batch_size, progression.failed):
                    if kept is not None:
                        kept.add(job)
                    progression.coloured(job)
            finally:
                if kept is not None:
                    kept.write()
    if target.is_dir():
        print(progression.summary, flush=True)
    if progression.failures == progression.total:
        raise UserError(f"{target}: nothing in it could be coloured; the reasons are above")
    return 1 if progression.failures else 0


def _side(size: str) -> int | str:
    """Return ``--size`` as a number, or as it is if it is ``native``."""
    if size == "native":
        return size
    if not size.isdecimal() or not _SIDES[0] <= int(size) <= _SIDES[1]:
        raise UserError(f"--size {size}: must be native or a number from {_SIDES[0]} to {_SIDES[1]}")
    return int(size)


def _source(reference: Path | None, pick_from: Path | None, keep_reference: bool) -> Path:
    """Return where references come from, of the two ways to say it."""
    if reference is not None and pick_from is not None:
        raise UserError(f"REFERENCE {reference} and --pick-from {pick_from} are both given; leave one of them out")
    source = reference or pick_from
    if source is None:
        raise UserError("no REFERENCE given; name one after TARGET, or give a folder to choose from with --pick-from")
    if keep_reference and pick_from is None:
        raise UserError("--keep-reference keeps what --pick-from chose; add --pick-from, or leave it out")
    if pick_from is not None and pick_from.is_file():
        raise UserError(f"--pick-from {pick_from}: is a file; name a folder, or give the picture as REFERENCE")
    return source


def pick_references(
    jobs: Sequence[Job], candidates: Sequence[Path], folder: Path, device: str
) -> tuple[list[Job], list[str]]:
    """Return the jobs with the picked reference of each, which is printed, and a sentence for each that has none.

    Raises:
        UserError: there is no picture in colour to pick from, or the backbone or the device cannot be had.
    """
    from pdnla.devices import choose_device
    from pdnla.inference.choosing import choose_references

    choices = []
    if candidates:
        with describing() as tell:
            targets = [job.target for job in jobs]
            choices = choose_references(targets, candidates, device=choose_device(device), workers=2, progress=tell)
    chosen = {choice.target: choice for choice in choices}
    picked, unmatched = [], []
    for job in jobs:
        if job.target in chosen:
            _, reference, score = chosen[job.target]
            print(f"picked for {job.name}: {reference}, score {score:.3f}", flush=True)
            picked.append(job._replace(reference=reference, score=score))
        else:
            unmatched.append(_why_none(job.target, folder))
    return picked, unmatched


def _why_none(target: Path, folder: Path) -> str:
    try:
        read_image(target)
    except UserError as error:
        return str(error)
    return f"{target}: {folder} holds no other picture in colour that can be read; choose another with --pick-from"


class KeptReferences:
    """Copies of picked references beside the results, and a file of pairs that names them with their scores.

    Beside ``a.png`` lies ``a_reference.jpg``. The file is ``references.csv`` in the folder of results, or
    ``a_reference.csv`` for a single one; its lines about other targets, of earlier runs, stay.

    Args:
        plan: the command's; a copy takes the place of none of its pictures.
        overwrite: a copy takes the place of an earlier one.

    Raises:
        UserError: the file exists and is another one.
    """

    def __init__(self, plan: Plan, overwrite: bool) -> None:
        from pdnla.inference.choosing import read_choices

        self.overwrite = overwrite
        self._taken = {path.resolve() for job in plan.jobs for path in (job.target, job.result)}
        single = plan.jobs[0].result
        self.file = plan.folder / "references.csv" if plan.folder else single.with_name(f"{single.stem}{COPY}.csv")
        found = read_choices(self.file) if self.file.exists() else []
        self._choices = {_absolute(choice.target): choice for choice in found}

    def add(self, job: Job) -> None:
        """Copy a job's reference, and remember its line.

        Raises:
            UserError: the copy cannot be written.
        """
        from pdnla.inference.choosing import Choice

        assert job.score is not None
        endings = itertools.chain([COPY], (f"{COPY}_{number}" for number in itertools.count(2)))
        names = (f"{job.result.stem}{ending}{job.reference.suffix}" for ending in endings)
        copy = next(path for path in map(job.result.with_name, names) if self._free(path))
        with replacing(copy) as temporary:
            shutil.copyfile(job.reference, temporary)
        self._choices[_absolute(job.target)] = Choice(job.target, job.reference, job.score)

    def _free(self, path: Path) -> bool:
        return path.resolve() not in self._taken and (self.overwrite or not path.exists())

    def write(self) -> None:
        """Write the file of pairs, if there is anything to write.

        Raises:
            UserError: it cannot be written.
        """
        from pdnla.inference.choosing import write_choices

        if self._choices:
            write_choices(self.file, self._choices.values())


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - without following links, unlike resolve, and without "..", unlike absolute


class Progression:
    """Counts and shows what is done: a bar on a terminal, a line for each picture otherwise.

    Args:
        total: how many pictures there are.
        alone: the user named one picture, whose failure is the command's own.
    """

    def __init__(self, total: int, alone: bool) -> None:
        self.total = total
        self.alone = alone
        self.colours = self.skips = self.failures = 0
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = progress_bar("colouring", self._console)
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> "Progression":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def summary(self) -> str:
        """What was done, in one line."""
        return f"{self.colours} coloured, {self.skips} skipped, {self.failures} failed"

    def coloured(self, job: Job) -> None:
        """Say that a picture has its result."""
        self.colours += 1
        self._step(f"coloured {self._count()} {job.name} → {job.result}")

    def skipped(self, job: Job) -> None:
        """Say that a picture was left alone because it has a result."""
        self.skips += 1
        self._step(f"skipped {self._count()} {job.name}: {job.result} exists; --overwrite replaces it")

    def failed(self, sentence: str) -> None:
        """Say that a picture could not be coloured, and why.

        Raises:
            UserError: it is the only one.
        """
        if self.alone:
            raise UserError(sentence)
        self.failures += 1
        self._step(f"failed {self._count()} {sentence}", complaint=True)

    def _count(self) -> str:
        return f"{self.colours + self.skips + self.failures}/{self.total}"

    def _step(self, line: str, complaint: bool = False) -> None:
        if self._bar is None:
            print(line, file=sys.stderr if complaint else sys.stdout, flush=True)
            return
        if complaint or self.alone:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._bar.advance(self._task)

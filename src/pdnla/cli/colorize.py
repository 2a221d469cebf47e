"""``pdnla-colorize``: colour a photograph, or a folder of them, after a reference."""

import enum
import functools
import itertools
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress

from pdnla.cli._run import describing, progress_bar, run
from pdnla.data.images import Picture, check_writable_suffix, list_images, read_image, write_image
from pdnla.data.matching import Pairing, pair
from pdnla.data.overlapping import Behind, ahead
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.pretrained import BUNDLED, card, find_weights

if TYPE_CHECKING:  # torch takes seconds to import, and --help or a wrong path need none of it
    from PIL.Image import Image

    from pdnla.colorizer import Colorizer

COMMAND = "pdnla-colorize"
_BATCH_PIXELS = 64_000_000  # full-size pixels in a batch after which it is coloured, however few the pictures
_WAITING_PIXELS = 64_000_000  # read ahead of colouring, and as many still to be written
_SIDES = (16, 8192)  # at which the network may see pictures
_ENDING = "_colorized"  # of a result's name, where the user gives none
_COPY = "_reference"  # of the name of a copy of its reference

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
            "--compile", help="Compile the network: for many pictures. The first time takes minutes and is kept."
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
            from pdnla.colorizer import Colorizer

            colorizer = Colorizer(weights, device=device, precision=precision.value, size=side, compile=compile_)
            try:
                _colour(colorizer, waiting, batch_size, progression, kept)
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


class Job(NamedTuple):
    """One picture to colour: what to call it, and where its parts are; the score of a reference that was picked."""

    name: str
    target: Path
    reference: Path
    result: Path
    score: float | None = None


class Plan(NamedTuple):
    """The jobs, a sentence for each target that has no reference, and what the user should know.

    ``folder`` is where the results of a folder go. Where references are to be picked, ``candidates`` are what from, and
    each job's reference is their folder until one is.
    """

    jobs: list[Job]
    unmatched: list[str]
    remark: str | None
    folder: Path | None = None
    candidates: Sequence[Path] = ()


def plan_jobs(target: Path, reference: Path, out: Path | None, pick: bool = False) -> Plan:
    """Pair targets with references and name the results; nothing is decoded or written.

    Args:
        target: a picture or a folder.
        reference: a picture or a folder.
        out: where the result or results go; None for beside the target.
        pick: references are to be picked from a folder by what they show, not matched by name.

    Raises:
        UserError: a path is missing or empty, no reference can be told for any target, or a result would take
            the place of a target or a reference.
    """
    for path in (target, reference):
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the path")
    if target.is_dir():
        folder = out or _beside(target)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; a folder of targets needs a folder for its results")
        for path in (target, reference):
            if _same(folder, path):
                raise UserError(f"{folder}: is where the pictures come from; choose another folder with -o")
        targets = _images(target, without=(folder, reference))
        results = [folder / name for name in result_names([path.relative_to(target) for path in targets])]
        names = [str(path.relative_to(target)) for path in targets]
    else:
        folder = target
        targets, results, names = [target], [_result_of_one(target, out)], [target.name]
    paired: Pairing = Pairing([reference] * len(targets), None)
    candidates: list[Path] = []
    if pick:
        written = {path.resolve() for path in results}
        copied = {path.with_name(f"{path.stem}{_COPY}") for path in written}
        for path in _images(reference, without=(folder,)):
            place = path.resolve()
            if _ENDING not in path.stem and place not in written and place.with_suffix("") not in copied:
                candidates.append(path)
    elif reference.is_dir():
        paired = pair(target, targets, reference, _images(reference, without=(folder, target)))
    jobs, unmatched = [], []
    for name, path, guide, result in zip(names, targets, paired.references, results, strict=True):
        if isinstance(guide, Path):
            jobs.append(Job(name, path, guide, result))
        else:
            unmatched.append(f"{path}: {guide}")
    inputs = {path.resolve() for job in jobs for path in (job.target, job.reference)}
    for job in jobs:
        if job.result.resolve() in inputs:
            raise UserError(f"{job.result}: is a picture to work from; choose another place with -o")
    return Plan(jobs, unmatched, paired.remark, folder if target.is_dir() else None, candidates)


def pick_references(
    jobs: Sequence[Job], candidates: Sequence[Path], folder: Path, device: str
) -> tuple[list[Job], list[str]]:
    """Return the jobs with the picked reference of each, which is printed, and a sentence for each that has none.

    Raises:
        UserError: there is no picture in colour to pick from, or the backbone or the device cannot be had.
    """
    from pdnla.data.choosing import choose_references
    from pdnla.devices import choose_device

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
        from pdnla.data.choosing import read_choices

        self.overwrite = overwrite
        self._taken = {path.resolve() for job in plan.jobs for path in (job.target, job.result)}
        single = plan.jobs[0].result
        self.file = plan.folder / "references.csv" if plan.folder else single.with_name(f"{single.stem}{_COPY}.csv")
        found = read_choices(self.file) if self.file.exists() else []
        self._choices = {_absolute(choice.target): choice for choice in found}

    def add(self, job: Job) -> None:
        """Copy a job's reference, and remember its line.

        Raises:
            UserError: the copy cannot be written.
        """
        from pdnla.data.choosing import Choice

        assert job.score is not None
        endings = itertools.chain([_COPY], (f"{_COPY}_{number}" for number in itertools.count(2)))
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
        from pdnla.data.choosing import write_choices

        if self._choices:
            write_choices(self.file, self._choices.values())


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - without following links, unlike resolve, and without "..", unlike absolute


def result_names(targets: Sequence[Path]) -> list[Path]:
    """Return a PNG's name for each relative path, all different even where upper and lower case are one.

    It is the target's with the suffix .png; targets that differ in their suffix only keep it (a.jpg.png).
    """
    wanted = [path.with_suffix(".png") for path in targets]
    count = Counter(str(path).casefold() for path in wanted)
    taken = {name for name, times in count.items() if times == 1}
    names = []
    for path, name in zip(targets, wanted, strict=True):
        if count[str(name).casefold()] > 1:
            endings = itertools.chain([".png"], (f"_{number}.png" for number in itertools.count(2)))
            tries = (path.with_name(path.name + ending) for ending in endings)
            name = next(free for free in tries if str(free).casefold() not in taken)
            taken.add(str(name).casefold())
        names.append(name)
    return names


def _images(folder: Path, without: Sequence[Path]) -> list[Path]:
    """Return the images below ``folder`` but not those below the folders in ``without`` that lie in it."""
    top = folder.resolve()
    inner = [path.resolve() for path in without]
    inner = [path for path in inner if path != top and path.is_relative_to(top) and path.is_dir()]
    images = list_images(folder)
    kept = [path for path in images if not any(path.resolve().is_relative_to(other) for other in inner)]
    if not kept:
        raise UserError(f"{folder}: holds no image of its own; choose another folder")
    return kept


def _beside(folder: Path) -> Path:
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}{_ENDING}")


def _result_of_one(target: Path, out: Path | None) -> Path:
    name = f"{target.stem}{_ENDING}.png"
    if out is None:
        return target.with_name(name)
    if out.is_dir():
        return out / name
    check_writable_suffix(out)
    return out


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _colour(
    colorizer: "Colorizer",
    jobs: Sequence[Job],
    batch_size: int,
    progression: "Progression",
    kept: KeptReferences | None = None,
) -> None:
    """Colour ``jobs``; a picture that cannot be read or coloured is reported and left out.

    Raises:
        UserError: the one reference of many targets cannot be read, or a result or a copy cannot be written.
    """
    shared = jobs[0].reference if all(job.reference == jobs[0].reference for job in jobs) else None
    if shared is not None:
        colorizer.set_reference(read_image(shared))

    def finished(jobs: Sequence[Job]) -> None:
        for job in jobs:
            if kept is not None:
                kept.add(job)
            progression.coloured(job)

    with Behind[Job](limit=_WAITING_PIXELS) as writing:
        for batch in _batches(jobs, batch_size, shared, progression):
            for loaded, result in _colour_batch(colorizer, batch, progression):
                write = functools.partial(write_image, loaded.job.result, result)
                finished(writing.do(loaded.job, write, weight=result.width * result.height))
        finished(writing.rest())


class Loaded(NamedTuple):
    """A job with its pictures in memory; no reference where all jobs share one."""

    job: Job
    target: Picture
    reference: Picture | None

    @property
    def pixels(self) -> int:
        """How many pixels they have together."""
        pictures = [self.target] if self.reference is None else [self.target, self.reference]
        return sum(picture.size[0] * picture.size[1] for picture in pictures)


def _batches(
    jobs: Sequence[Job], batch_size: int, shared: Path | None, progression: "Progression"
) -> Iterator[list[Loaded]]:
    """Read pictures, ahead of what is done with them, into batches of ``batch_size``, or fewer where they are huge."""

    def read(job: Job) -> Loaded | str:
        try:
            return Loaded(job, read_image(job.target), None if shared else read_image(job.reference))
        except UserError as error:
            return str(error)

    batch: list[Loaded] = []
    for found in ahead(read, jobs, lambda found: 0 if isinstance(found, str) else found.pixels, _WAITING_PIXELS):
        if isinstance(found, str):
            progression.failed(found)
            continue
        batch.append(found)
        if len(batch) == batch_size or sum(loaded.pixels for loaded in batch) > _BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _colour_batch(
    colorizer: "Colorizer", batch: Sequence[Loaded], progression: "Progression"
) -> Iterator[tuple[Loaded, "Image"]]:
    """Colour a batch; if it fails, its pictures one by one, so that one of them does not spoil the rest."""
    references = [loaded.reference for loaded in batch if loaded.reference is not None]
    try:
        results = colorizer.colorize_many([loaded.target for loaded in batch], references or None)
    except UserError as error:
        if len(batch) == 1:
            progression.failed(f"{batch[0].job.target}: {error}")
            return
        for loaded in batch:
            yield from _colour_batch(colorizer, [loaded], progression)
        return
    yield from zip(batch, results, strict=True)


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

"""``pdnla-colorize``: colour a photograph, or many, after a reference."""

import enum
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer
from typing_extensions import Self

from pdnla.cli._progress import Progress, say
from pdnla.cli._run import SOME_FAILED, run
from pdnla.errors import UserError
from pdnla.images.io import check_writable_suffix
from pdnla.inference.album import Settings, colour_album
from pdnla.inference.planning import Album, Task, is_pairs_file, plan_album
from pdnla.inference.results import write_failures
from pdnla.pretrained import BUNDLED, card, find_weights
from pdnla.processes import Rank, launched_rank, leave_together

COMMAND = "pdnla-colorize"
_SIDES = (16, 8192)  # at which the network may see pictures

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


class Depth(str, enum.Enum):
    """Bits a channel of a result."""

    eight = "8"
    sixteen = "16"


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
        for line in card().splitlines():
            say(line)
        raise typer.Exit


@app.command()
def colorize(
    target: Annotated[
        Path,
        typer.Argument(metavar="TARGET", help="Picture to colour, a folder, a folder of shards, or a file of pairs."),
    ],
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
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="Where the result goes: a file, whose suffix says the format, or a folder, new if its name ends in /. "
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
            help="The network works on about SIZE x SIZE pixels (16 to 8192), or on each picture at its own size if"
            " this is native; the result has the target's own size.",
        ),
    ] = "512",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is bfloat16 where the hardware computes in it, else float32.")
    ] = Precision.auto,
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Colour in N processes, each on a CUDA device of its own, or on its share of the processors.",
        ),
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of like shape coloured at a time.")] = 1,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network, for many pictures on a GPU; a CPU is faster without. The first time takes"
            " minutes and is kept.",
        ),
    ] = False,
    accelerate: Annotated[
        bool,
        typer.Option(help="Use the fast forms of the network's modules; --no-accelerate computes them as written."),
    ] = True,
    depth: Annotated[
        Depth, typer.Option(help="Bits a channel of the results; 16, in PNG or TIFF, keep a 16-bit grey scan's L*.")
    ] = Depth.eight,
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

    Lines of target,reference, such as pdnla-pairs writes, on two GPUs:

        pdnla-colorize pairs.csv -o coloured/ --devices 2

    Results that exist are skipped, so that a command which was stopped goes on where it was. Under torchrun or srun
    each process colours its share. What cannot be coloured is listed in failed.csv among the results, and the exit
    status is 1.
    """
    source = _source(target, reference, pick_from, keep_reference)
    settings = Settings(
        weights=weights,
        precision=precision.value,
        size=_side(size),
        compile=compile_,
        accelerate=accelerate,
        device=device,
        devices=devices,
        batch_size=batch_size,
        overwrite=overwrite,
        pick_from=pick_from,
        keep_references=keep_reference,
        depth=int(depth.value),
    )
    if not find_weights(weights).is_file():
        raise UserError(
            f"--weights {weights}: there is no such file; check the path, or use one of {', '.join(BUNDLED)}"
        )
    rank = launched_rank()
    if keep_reference and rank.world > 1:
        raise UserError("--keep-reference: torchrun's or srun's processes cannot share its list; use --devices instead")
    album = plan_album(target, source, out, pick=pick_from is not None)
    for task in album.tasks:
        check_writable_suffix(task.result, settings.depth)
    with Report(album.share(rank.number, rank.world), rank) as report:
        colour_album(album, settings, rank, report)
    status = report.conclude(target)
    leave_together()
    return status


def _side(size: str) -> int | str:
    """Return ``--size`` as a number, or as it is if it is ``native``."""
    if size == "native":
        return size
    if not size.isdecimal() or not _SIDES[0] <= int(size) <= _SIDES[1]:
        raise UserError(f"--size {size}: must be native or a number from {_SIDES[0]} to {_SIDES[1]}")
    return int(size)


def _source(target: Path, reference: Path | None, pick_from: Path | None, keep_reference: bool) -> Path | None:
    """Return where references come from, of the ways to say it; None if ``target`` is a file that names them."""
    if reference is not None and pick_from is not None:
        raise UserError(f"REFERENCE {reference} and --pick-from {pick_from} are both given; leave one of them out")
    if keep_reference and pick_from is None:
        raise UserError("--keep-reference keeps what --pick-from chose; add --pick-from, or leave it out")
    if pick_from is not None and pick_from.is_file():
        raise UserError(f"--pick-from {pick_from}: is a file; name a folder, or give the picture as REFERENCE")
    source = reference or pick_from
    if source is None and not is_pairs_file(target):
        raise UserError("no REFERENCE given; name one after TARGET, or give a folder to choose from with --pick-from")
    if source is not None and is_pairs_file(target):
        raise UserError(f"{target}: is a file of pairs, which names its references itself; leave {source} out")
    return source


class Report:
    """Prints what becomes of an album and counts it.

    Args:
        album: what this process colours.
        rank: which process it is.
    """

    def __init__(self, album: Album, rank: Rank) -> None:
        self.album, self.rank = album, rank
        self.single = album.folder is None
        self.total = len(album.tasks) + len(album.failures)
        self.colours = self.skips = 0
        self.failures: list[str] = []
        self.others: list[str] = []
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if self.album.remark:
            say(f"{COMMAND}: {self.album.remark}", error=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def described(self, done: int, total: int) -> None:
        """Say how many pictures are described."""
        self._show("describing").update(done, total)

    def picked(self, task: Task) -> None:
        """Say which reference is picked."""
        self._show("colouring").print(f"picked for {task.name}: {task.reference}, score {task.score:.3f}")

    def skipped(self, task: Task) -> None:
        """Say that a picture has a result already."""
        self.skips += 1
        self._advance(f"skipped {self._count()} {task.name}: {task.result} exists; --overwrite replaces it")

    def coloured(self, task: Task) -> None:
        """Say that a picture has its result."""
        self.colours += 1
        self._advance(f"coloured {self._count()} {task.name}: {task.result}")

    def failed(self, sentence: str) -> None:
        """Say that a picture could not be coloured, and why.

        Raises:
            UserError: it is the only one.
        """
        if self.single:
            raise UserError(sentence)
        self.failures.append(sentence)
        progress = self._show("colouring")
        progress.print(f"failed {self._count()} {sentence}", error=True)
        progress.update(self._done, self.total, line="")

    def left_out(self, sentence: str) -> None:
        """Say that something else could not be used."""
        self.others.append(sentence)
        self._show("colouring").print(f"left out: {sentence}", error=True)

    def conclude(self, target: Path) -> int:
        """Print the sum, leave the list of what failed, and return the exit status.

        Raises:
            UserError: nothing could be coloured.
        """
        failures = [*self.failures, *self.others]
        if self.album.folder is not None:
            write_failures(self.album.folder, failures, self.rank)
            whose = "" if self.rank.world == 1 else f"process {self.rank.number} of {self.rank.world}: "
            say(f"{whose}{self.colours} coloured, {self.skips} skipped, {len(self.failures)} failed")
            if len(self.failures) == self.total and self.rank.world == 1:
                raise UserError(f"{target}: nothing in it could be coloured; the reasons are above")
        return SOME_FAILED if failures else 0

    @property
    def _done(self) -> int:
        return self.colours + self.skips + len(self.failures)

    def _count(self) -> str:
        return f"{self._done}/{self.total}"

    def _advance(self, line: str) -> None:
        progress = self._show("colouring")
        if self.single:
            progress.print(line)
            line = ""
        progress.update(self._done, self.total, line=line)

    def _show(self, doing: str) -> Progress:
        """Return the display of what is done now, shown in place of what was done before."""
        if self._progress is None or self._progress.doing != doing:
            if self._progress is not None:
                self._progress.stop()
            self._progress = Progress(doing, bar=self.rank.number == 0)
            self._progress.start()
        return self._progress


if __name__ == "__main__":
    main()

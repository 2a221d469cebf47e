"""``pdnla-colorize``: colour photographs with the colours of references."""

import enum
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Annotated, NamedTuple

import typer
from typing_extensions import Self

from pdnla.cli.command import SOME_FAILED, DeviceOption, run
from pdnla.cli.progress import Progress, echo
from pdnla.errors import UserError
from pdnla.files import identity
from pdnla.film.planning import Film, is_film, plan_film
from pdnla.images.io import check_writable_suffix
from pdnla.inference.album import ColouringSettings, colour_album
from pdnla.inference.planning import Album, Task, is_pairs_file, plan_album
from pdnla.inference.results import write_failures
from pdnla.options import WORKING_SIDES
from pdnla.pretrained import BUNDLED, card, check_weights, find_weights
from pdnla.processes import Rank, launched_rank, leave_together

COMMAND = "pdnla-colorize"
_FINEST_RATE = 1001  # largest denominator of --fps

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")


class Depth(str, enum.Enum):
    """Bits per channel of a result."""

    eight = "8"
    sixteen = "16"


class Precision(str, enum.Enum):
    """Number format of the network's computations."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


PrecisionOption = Annotated[
    Precision, typer.Option(help="auto is bfloat16 where the hardware supports it, else float32.")
]
"""The option ``--precision`` of commands that colour."""


def main() -> None:
    """Run the command with the arguments of the command line."""
    run(COMMAND, lambda: app(standalone_mode=False, prog_name=COMMAND))


def _about_weights(asked: bool) -> None:
    if asked:
        for line in card().splitlines():
            echo(line)
        raise typer.Exit


@app.command()
def colorize(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            readable=False,
            help="Picture to colour, a folder, a folder of shards, a pairs file, or a video file.",
        ),
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="REFERENCE...",
            readable=False,
            help="Picture that gives the colours, or a folder with one for each target, matched by name. Several"
            " pictures or folders: all of them give colours to every target.",
            show_default=False,
        ),
    ] = None,
    pick_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            help="Instead of REFERENCE: use for each target the most similar colour picture in FOLDER.",
            show_default=False,
        ),
    ] = None,
    keep_reference: Annotated[
        bool,
        typer.Option(
            "--keep-reference",
            help="Copy each reference that --pick-from chooses next to its result, and list its score in a pairs file.",
        ),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="Where the result goes: a file, whose suffix gives the format, or a folder (end a new one with /). "
            "Default: TARGET_colorized.png or TARGET_colorized/ next to the target.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            "-w",
            help="Weights of pdnla-train or pdnla-convert, or the name of weights in the package:"
            f" {', '.join(BUNDLED)}.",
        ),
    ] = "default",
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="The network works on about SIZE x SIZE pixels (16 to 8192), or with native on each picture at its own"
            " size; the result has the target's own size.",
        ),
    ] = "512",
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Colour in N processes, each on its own CUDA device or on its share of the processors.",
        ),
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of similar shape coloured at a time.")] = 1,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network, for many pictures on a GPU; a CPU is faster without. The first compilation takes"
            " minutes and is cached.",
        ),
    ] = False,
    accelerate: Annotated[
        bool,
        typer.Option(help="Use the fast versions of the network's modules; --no-accelerate uses the plain ones."),
    ] = True,
    depth: Annotated[
        Depth, typer.Option(help="Bits per channel of the results; 16, in PNG or TIFF, keep a 16-bit grey scan's L*.")
    ] = Depth.eight,
    film: Annotated[
        bool,
        typer.Option("--film", help="TARGET is a folder of frames of one film, so that colours hold still."),
    ] = False,
    shots: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Shots of a film with their references: read if the file exists, or else written, to be edited.",
            show_default=False,
        ),
    ] = None,
    review: Annotated[
        bool,
        typer.Option("--review", help="Write a page with one coloured frame of each shot of a film, and stop."),
    ] = False,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoder of a film: libx264 (the default in most containers), libx265, ffv1, prores_ks, ...",
            show_default=False,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=63,
            metavar="N",
            help="Constant rate factor of a film; less is better [default: 16].",
            show_default=False,
        ),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="Frames per second of a folder of frames that becomes a video file [default: 25].",
            show_default=False,
        ),
    ] = None,
    about_weights: Annotated[
        bool,
        typer.Option(
            "--about-weights",
            help="Describe the weights in the package and exit.",
            callback=_about_weights,
            is_eager=True,
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> int:
    """Colour TARGET with the colours of REFERENCE; its size and its luminance stay as they are.

    One picture:

        pdnla-colorize old.jpg similar.jpg

    One picture, with the colours of several references:

        pdnla-colorize old.jpg house.jpg garden.jpg

    A folder, each picture with the colours of the one of the same name in references/:

        pdnla-colorize album/ references/ -o coloured/

    A folder, each picture with the colours of the most similar photograph of another folder:

        pdnla-colorize album/ --pick-from photographs/

    A pairs file with lines of target,reference, such as pdnla-pairs writes, on two GPUs:

        pdnla-colorize pairs.csv -o coloured/ --devices 2

    A film with its sound, or the frames of one in a folder, with the colours of stills:

        pdnla-colorize film.mp4 still1.jpg still2.jpg -o film_colour.mp4

        pdnla-colorize frames/ stills/ --film -o coloured/

    Results that exist are skipped, so repeating a stopped command continues it. Under torchrun or srun
    each process colours its share. Pictures that cannot be coloured are listed in failed.csv next to the results, and
    the exit status is 1.
    """
    options = FilmOptions(shots, review, codec, crf, fps)
    if is_film(target, out, film):
        if pick_from is not None or keep_reference or devices > 1 or batch_size > 1:
            raise UserError(
                f"{target}: is a film, whose shots choose among REFERENCE...; leave out --pick-from, --keep-reference,"
                " --devices and --batch-size"
            )
        planned = plan_film(target, reference or [], out)
        return _colour_film(
            options.apply_to(planned._replace(size=working_side(size), depth=int(depth.value))),
            ColouringSettings(weights, precision.value, working_side(size), compile_, accelerate, device),
            review,
            overwrite,
        )
    options.refuse()
    source = _source(target, reference or [], pick_from, keep_reference)
    settings = ColouringSettings(
        weights=weights,
        precision=precision.value,
        size=working_side(size),
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
    check_weights(weights, "--weights")
    rank = launched_rank()
    if keep_reference and rank.world > 1:
        raise UserError(
            "--keep-reference: the processes of torchrun or srun cannot share its list; use --devices instead"
        )
    album = plan_album(target, source, out, by_content=pick_from is not None)
    for task in album.tasks:
        check_writable_suffix(task.result, settings.depth)
    with Report(album.share(rank.number, rank.world), rank) as report:
        colour_album(album, settings, rank, report)
    status = report.conclude(target)
    leave_together()
    return status


class FilmOptions(NamedTuple):
    """The options that only a film has; see :func:`colorize`."""

    shots: Path | None
    review: bool
    codec: str | None
    crf: int | None
    fps: str | None

    def refuse(self) -> None:
        """Raise UserError if one is given for pictures."""
        given = [f"--{name}" for name, value in self._asdict().items() if value not in (None, False)]
        if given:
            raise UserError(
                f"{given[0]}: is for film; name a video file as TARGET, or add --film for a folder of frames"
            )

    def apply_to(self, film: Film) -> Film:
        """Return a film with these options.

        Raises:
            UserError: one of them does not go with it.
        """
        if self.fps is not None and not film.target.is_dir():
            raise UserError(f"--fps: {film.target} has its own time stamps, which are kept; leave --fps out")
        for name, value in (("codec", self.codec), ("crf", self.crf), ("fps", self.fps)):
            if value is not None and not film.to_video:
                raise UserError(f"--{name}: is for video files, and the result is a folder; end its name in .mp4")
        if film.to_video and film.depth != 8:
            raise UserError(
                f"--depth {film.depth}: is for pictures; a video has the bits of the film, if --codec has them"
            )
        rate = film.rate
        if self.fps is not None:
            try:
                rate = Fraction(self.fps).limit_denominator(_FINEST_RATE)
            except (ValueError, ZeroDivisionError):
                rate = Fraction(0)
            if not Fraction(1, 1000) <= rate <= 1000:
                raise UserError(
                    f"--fps {self.fps}: must be a number of frames per second from 0.001 to 1000, such as 24 or"
                    " 24000/1001"
                )
        return film._replace(rate=rate, codec=self.codec, crf=self.crf, shots=self.shots)


def _colour_film(film: Film, settings: ColouringSettings, review: bool, overwrite: bool) -> int:
    """Colour a film, or write its page for review, and return the exit status."""
    check_weights(settings.weights, "--weights")
    if film.done and not (review or overwrite):
        echo(f"skipped {film.target.name}: {film.out} exists; --overwrite replaces it")
        return 0
    from pdnla.devices import keep_compiled_code
    from pdnla.film.colouring import colour_film
    from pdnla.inference.colorizer import Colorizer
    from pdnla.memory import keep_freed_memory

    keep_freed_memory()
    if settings.compile:
        keep_compiled_code()
    options = (settings.precision, settings.size, settings.compile, settings.accelerate)
    about = {"weights": identity(find_weights(settings.weights)), "precision": settings.precision}
    with FilmReport() as report:
        colorizer = Colorizer(settings.weights, settings.device, *options)
        result = colour_film(film, colorizer, about, review, report)
    echo(f"{'reviewed' if review else 'coloured'} {film.target.name}: {result}")
    return SOME_FAILED if report.damaged else 0


class FilmReport:
    """Prints the progress of a film."""

    def __init__(self) -> None:
        self.damaged = False
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def remark(self, sentence: str) -> None:
        """Print a sentence."""
        if self._progress is None:
            echo(f"{COMMAND}: {sentence}", error=True)
        else:
            self._progress.print(f"{COMMAND}: {sentence}", error=True)

    def damage(self, sentence: str) -> None:
        """Print a sentence on what is lost of the film."""
        self.damaged = True
        self.remark(sentence)

    def scanned(self, done: int, total: int) -> None:
        """Show how many frames were searched for cuts."""
        self._show("scanning").update(done, total or None)

    def coloured(self, done: int, total: int) -> None:
        """Show how many frames are coloured."""
        self._show("colouring").update(done, total)

    def _show(self, doing: str) -> Progress:
        if self._progress is None or self._progress.doing != doing:
            if self._progress is not None:
                self._progress.stop()
            self._progress = Progress(doing, unit="frames", timed=True)
            self._progress.start()
        return self._progress


def working_side(size: str) -> int | str:
    """Return ``--size`` as a number, or ``native``."""
    if size == "native":
        return size
    least, most = WORKING_SIDES
    if not size.isdecimal() or not least <= int(size) <= most:
        raise UserError(f"--size {size}: must be native or a number from {least} to {most}")
    return int(size)


def _source(target: Path, references: Sequence[Path], pick_from: Path | None, keep_reference: bool) -> Sequence[Path]:
    """Return the sources of references; none if ``target`` is a pairs file, which names them itself."""
    if references and pick_from is not None:
        raise UserError(f"REFERENCE {references[0]} and --pick-from {pick_from} are both given; leave one of them out")
    if keep_reference and pick_from is None:
        raise UserError("--keep-reference keeps what --pick-from chose; add --pick-from, or leave it out")
    if pick_from is not None and pick_from.is_file():
        raise UserError(f"--pick-from {pick_from}: is a file; name a folder, or give the picture as REFERENCE")
    sources = [*references] if pick_from is None else [pick_from]
    if not sources and not is_pairs_file(target):
        raise UserError("no REFERENCE given; name one after TARGET, or give a folder to choose from with --pick-from")
    if sources and is_pairs_file(target):
        raise UserError(f"{target}: is a pairs file, which names its references itself; leave {sources[0]} out")
    return sources


class Report:
    """Prints the progress of an album and counts its results.

    Args:
        album: the pictures that this process colours.
        rank: the rank of this process.
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
            echo(f"{COMMAND}: {self.album.remark}", error=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def described(self, done: int, total: int) -> None:
        """Show the number of pictures whose descriptors are computed."""
        self._show("describing").update(done, total)

    def chosen(self, task: Task) -> None:
        """Print the reference that was chosen."""
        self._show("colouring").print(f"picked for {task.name}: {task.reference}, score {task.score:.3f}")

    def skipped(self, task: Task) -> None:
        """Report a picture that already has a result."""
        self.skips += 1
        self._advance(f"skipped {self._count()} {task.name}: {task.result} exists; --overwrite replaces it")

    def coloured(self, task: Task) -> None:
        """Report a coloured picture."""
        self.colours += 1
        self._advance(f"coloured {self._count()} {task.name}: {task.result}")

    def failed(self, sentence: str) -> None:
        """Report a picture that could not be coloured, with the reason.

        Raises:
            UserError: it is the only picture.
        """
        if self.single:
            raise UserError(sentence)
        self.failures.append(sentence)
        progress = self._show("colouring")
        progress.print(f"failed {self._count()} {sentence}", error=True)
        progress.update(self._done, self.total, line="")

    def left_out(self, sentence: str) -> None:
        """Report anything else that could not be used."""
        self.others.append(sentence)
        self._show("colouring").print(f"left out: {sentence}", error=True)

    def conclude(self, target: Path) -> int:
        """Print the counts, write the list of failures, and return the exit status.

        Raises:
            UserError: nothing could be coloured.
        """
        failures = [*self.failures, *self.others]
        if self.album.folder is not None:
            write_failures(self.album.folder, failures, self.rank)
            whose = "" if self.rank.world == 1 else f"process {self.rank.number} of {self.rank.world}: "
            echo(f"{whose}{self.colours} coloured, {self.skips} skipped, {len(self.failures)} failed")
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
        """Return the display of the current work, which replaces that of the work before."""
        if self._progress is None or self._progress.doing != doing:
            if self._progress is not None:
                self._progress.stop()
            self._progress = Progress(doing, bar=self.rank.number == 0)
            self._progress.start()
        return self._progress


if __name__ == "__main__":
    main()

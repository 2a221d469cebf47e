"""What an evaluation measures: a record a case, and a summary of them all."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pdnla.evaluation.measures import Figures

TARGET, REFERENCE = "target", "reference"


class Record(NamedTuple):
    """One case: its number and name, each method's figures, and which pictures of it were kept, in their order."""

    number: int
    name: str
    figures: dict[str, Figures]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """The figures of all methods on the cases of a protocol.

    Attributes:
        methods: the kind of each by its name, in the order of tables: ``weights``, ``published``, ``baseline``,
            ``truth``.
        measures: names of :data:`pdnla.evaluation.measures.MEASURES` that any method has.
        summary: of each method over the cases, and its Fréchet distances.
        records: the cases in order.
        left_out: a sentence for each case that could not be used.
    """

    methods: dict[str, str]
    measures: list[str]
    summary: dict[str, Figures]
    records: list[Record]
    left_out: list[str]


def kept(folder: Path, index: int, column: int) -> Path:
    """Return where a small picture of a case is kept."""
    return folder / f"{index:07d}_{column}.jpg"

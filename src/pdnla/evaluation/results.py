"""The results of an evaluation: one record per case, and a summary."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pdnla.evaluation.measures import Figures

TARGET, REFERENCE = "target", "reference"


class Record(NamedTuple):
    """One case: its number and name, each method's values, and the names of its kept pictures, in order."""

    number: int
    name: str
    figures: dict[str, Figures]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """The values of all methods on the cases of a protocol.

    Attributes:
        methods: the kind of each by its name, in the order of tables: ``weights``, ``published``, ``baseline``,
            ``truth``.
        measures: names in :data:`pdnla.evaluation.measures.MEASURES` that any method has.
        summary: the values of each method over all cases, with its Fréchet distances.
        records: the cases in order.
        left_out: a sentence for each case that could not be used.
    """

    methods: dict[str, str]
    measures: list[str]
    summary: dict[str, Figures]
    records: list[Record]
    left_out: list[str]


def kept(folder: Path, index: int, column: int) -> Path:
    """Return the file of a kept small picture of a case."""
    return folder / f"{index:07d}_{column}.jpg"

"""The most similar references for a user's target, with their scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pdnla.errors import UserError
from pdnla.images.greys import check_reference
from pdnla.inference.choosing import choose_references
from pdnla.web.studio import Studio
from pdnla.web.uploads import Limits, Upload, check_upload

BEST = 5
"""How many references are shown."""


class Candidate(NamedTuple):
    """A reference with its similarity to the target, a cosine; None if it was not compared."""

    upload: Upload
    score: float | None = None


def usable_uploads(uploads: Sequence[Upload], limits: Limits) -> tuple[list[Upload], list[str]]:
    """Return the uploads that are colour pictures within the limits, and a sentence for each other upload."""
    kept, left_out = [], []
    for upload in uploads:
        try:
            check_upload(upload, limits)
            check_reference(upload)
            kept.append(upload)
        except UserError as error:
            left_out.append(upload.hide_path(error))
    return kept, left_out


def choose_candidates(
    studio: Studio,
    target: Upload,
    references: Sequence[Upload],
    cache: Path,
    count: int = BEST,
    progress: Callable[[int, int], None] | None = None,
    left_out: Callable[[str], None] | None = None,
) -> list[Candidate]:
    """Return the references in colour that are most similar to the target, best first; a single one is not compared.

    Args:
        studio: the studio; the comparison waits for a turn.
        target: the target.
        references: readable pictures; none: those on this machine (:attr:`Studio.candidates`).
        cache: folder for the descriptors of uploaded files.
        count: how many.
        progress: called with the number of finished pictures and the number of all.
        left_out: called with a sentence for each reference that cannot be read.

    Raises:
        UserError: the target cannot be read, or there are several references and none is another picture in colour.
    """
    own = not references
    if own:
        references = [Upload(path.name, path) for path in studio.candidates]
    if len(references) == 1:
        return [Candidate(references[0])]
    by_path = {one.path: one for one in references}
    sentences: list[str] = []
    with studio.turn() as colorizer:
        choices = choose_references(
            [target.path],
            list(by_path),
            count=count,
            device=colorizer.device,
            progress=progress,
            left_out=sentences.append,
            target_cache=cache,
            candidate_cache=None if own else cache,
        )
    for sentence in sentences:
        if sentence.startswith(str(target.path)):
            raise UserError(target.hide_path(sentence))
        broken = next(one for path, one in by_path.items() if sentence.startswith(str(path)))
        if left_out is not None:
            left_out(broken.hide_path(sentence))
    if not choices:
        raise UserError("none of the references is another picture in colour that can be read; choose others")
    return [Candidate(by_path[choice.reference], choice.score) for choice in choices]

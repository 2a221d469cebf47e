"""Which reference goes with which target: by place, by name, by lenient name, by order."""

from pathlib import Path

import pytest

from pdnla import UserError
from pdnla.inference.matching import match


def matched(targets: str, references: str, folder: Path) -> list[str]:
    """Return the references of targets, both as names separated by blanks, and ``-`` for none."""
    top, other = folder / "t", folder / "r"
    top.mkdir(exist_ok=True)
    found = match(top, [top / name for name in targets.split()], other, [other / name for name in references.split()])
    return [str(path.relative_to(other)) if isinstance(path, Path) else "-" for path in found.references]


@pytest.mark.parametrize(
    ("targets", "references", "expected"),
    [
        ("a.png b/a.png", "b/a.tif a.jpg", "a.jpg b/a.tif"),  # the place below the folder
        ("b/a.png", "c/a.jpg d.jpg", "c/a.jpg"),  # the name alone
        ("A.PNG b.png", "a.jpg x.jpg", "a.jpg -"),  # whatever the case
        ("a.png", "A.jpg a.tif", "a.tif"),  # but the same name first
        ("caf\u00e9.png", "cafe\u0301.jpg x.jpg", "cafe\u0301.jpg"),  # however an accent is composed
        ("a.png", "a.jpg a.png", "a.png"),  # of two, the one of its suffix
        ("a.webp b.png", "a.jpg a.png b.png", "- b.png"),  # none of two
        ("1.png 2.png", "x.png y.png", "x.png y.png"),  # no name fits: in order
    ],
)
def test_references_are_found_by_place_name_and_order(
    targets: str, references: str, expected: str, tmp_path: Path
) -> None:
    assert matched(targets, references, tmp_path) == expected.split()


def test_no_name_fits_and_counts_differ(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 references for 1 targets"):
        matched("1.png", "x.png y.png", tmp_path)

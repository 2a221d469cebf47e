"""The rules for the options of ``pdnla-eval``, in one table."""

from collections.abc import Mapping

from pdnla.options import NULL, TEXT, WORKING_SIDES, Rule, integer, list_of, number, one_of

_COUNT = integer(1) | NULL
_SIDE = integer(16)
_WHOLE_SIDE = (_SIDE | NULL)._replace(requirement="a whole number of at least 16, or null for the pictures' own size")
_FOLDERS = TEXT | list_of(TEXT) | NULL
_BY_NAME = Rule("texts by name {NAME: TEXT}", lambda value: isinstance(value, Mapping))
_ELEMENT = TEXT._replace(requirement="text, as NAME: TEXT")

OPTIONS: dict[str, Rule] = {
    # conf/eval.yaml
    "name": TEXT | integer(),
    "weights": TEXT | list_of(TEXT) | _BY_NAME | NULL,
    "weights.*": _ELEMENT,
    "baselines": list_of(TEXT),
    "size": integer(*WORKING_SIDES) | one_of("native"),
    "device": TEXT,
    "precision": one_of("auto", "float32", "bfloat16"),
    "devices": integer(1),
    "measures.*": one_of("auto", "true", "false")._replace(
        holds=lambda value: isinstance(value, bool) or value == "auto"
    ),
    "report.pictures": integer(0),
    "report.side": _SIDE,
    # conf/protocol
    "protocol.root": TEXT,
    "protocol.size": _WHOLE_SIDE,
    "protocol.square": _SIDE,
    "protocol.warp": number(0),
    "protocol.seed": integer(0, 2**32 - 1),
    "protocol.count": _COUNT,
    "protocol.counts.*": _COUNT,
    "protocol.targets": TEXT | NULL,
    "protocol.references": TEXT | NULL,
    "protocol.pairs_file": TEXT | NULL,
    "protocol.truths": TEXT | NULL,
    "protocol.published": _FOLDERS | _BY_NAME,
    "protocol.published.*": _ELEMENT,
    "protocol.views": _FOLDERS,
    "protocol.faces": TEXT | NULL,
    "protocol.photographs": TEXT | NULL,
    "protocol.frames": TEXT | list_of(TEXT),
    "protocol.reference": TEXT | NULL,
}

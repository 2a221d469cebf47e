"""The files of an evaluation: ``metrics.json``, ``metrics.csv`` and ``report.html``, a self-contained page."""

import base64
import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pdnla.evaluation.measures import MEASURES, Measure, best
from pdnla.evaluation.protocols import TRUTH, spread
from pdnla.evaluation.results import REFERENCE, TARGET, Evaluation, Record, kept
from pdnla.evaluation.suite import Part
from pdnla.files import replacing

ARROWS = {"up": "↑", "down": "↓", "one": "→ 1"}
_POINTS = 100  # drawn in each distribution


class PageContents(NamedTuple):
    """Contents of the page in addition to the evaluations.

    Attributes:
        title: its heading.
        remarks: short remarks below the title.
        settings: the configuration as text.
        pictures: folder of the small pictures from :func:`pdnla.evaluation.runner.evaluate`.
        shown: largest number of cases of each part that are shown in pictures.
    """

    title: str
    remarks: Sequence[str]
    settings: str
    pictures: Path
    shown: int


def write_metrics(
    evaluations: Mapping[str, Evaluation], folder: Path, configuration: Mapping[str, Any], versions: Mapping[str, str]
) -> None:
    """Write the means and all values: ``metrics.json``, and ``metrics.csv`` with a row per picture and method.

    With several parts, ``metrics.json`` has them under ``parts``, and ``metrics.csv`` has a column ``part``.
    """
    content: dict[str, Any] = {"versions": versions, "configuration": configuration}
    figures = {name: _content(evaluation) for name, evaluation in evaluations.items()}
    several = len(evaluations) > 1
    content |= {"parts": figures} if several else next(iter(figures.values()))
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    used = {measure for evaluation in evaluations.values() for measure in _of_pictures(evaluation)}
    measures = [name for name in MEASURES if name in used]
    with (
        replacing(folder / "metrics.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*(["part"] if several else []), "picture", "method", *measures])
        for part, evaluation in evaluations.items():
            for record in evaluation.records:
                for name, values in record.figures.items():
                    row = [record.name, name, *(values.get(measure, "") for measure in measures)]
                    writer.writerow([part, *row] if several else row)


def _content(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "pictures": len(evaluation.records),
        "left_out": evaluation.left_out,
        "means": {name: evaluation.summary[name] for name in evaluation.methods},
        "figures": {record.name: record.figures for record in evaluation.records},
    }


def write_page(file: Path, evaluations: Mapping[str, Evaluation], parts: Mapping[str, Part], how: PageContents) -> None:
    """Write the page.

    Args:
        file: the file.
        evaluations: the evaluations by part.
        parts: the parts, for their headings.
        how: title, settings and pictures.
    """
    own = files("pdnla.evaluation")
    several = len(evaluations) > 1
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.write(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
            "<meta name=viewport content='width=device-width'>\n"
            f"<title>{escape(how.title)}</title>\n<style>\n{own.joinpath('page.css').read_text('utf-8')}</style>\n"
            f"<header><h1>{escape(how.title)}</h1><p>{escape(' · '.join(how.remarks))}</p></header>\n<main>\n"
        )
        if several:
            page.write(_links(parts))
            page.write(_overview(overview(evaluations, parts), kinds(evaluations), parts))
        page.write(f"<details><summary>Configuration</summary><pre>{escape(how.settings)}</pre></details>\n")
        with_pictures = False
        for name, evaluation in evaluations.items():
            page.write(f"<section id='{escape(name)}'>\n")
            if several:
                page.write(f"<h2>{escape(parts[name].title)}</h2><p class=hint>{escape(parts[name].meaning)}</p>\n")
            page.write(_means(evaluation))
            page.write(_left_out(evaluation))
            page.write(_distributions(evaluation, folded=several))
            shown = choose(evaluation, how.shown)
            if shown:
                with_pictures = True
                page.write(_controls(evaluation, len(shown), parts[name].overview[:1]))
                others = (column for record in shown for column in record.columns)
                columns = list(dict.fromkeys([TARGET, REFERENCE, *evaluation.methods, *others]))
                for record in shown:  # one at a time, because all rows can take a hundred megabytes
                    page.write(_row(record, columns, how.pictures / name))
                page.write(f"</div>\n<script type=application/json class=data>{_data(evaluation, shown)}</script>\n")
            page.write("</section>\n")
        if with_pictures:
            page.write(_VIEWER)
            page.write(f"<script>\n{own.joinpath('page.js').read_text('utf-8')}</script>\n")
        page.write("</main>\n</html>\n")


class Column(NamedTuple):
    """A measure of a part in the table of all parts: each method's value as printed, and the best methods."""

    part: str
    measure: Measure
    values: dict[str, str]
    best: list[str]


def kinds(evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    """Return the kind of each method of any part, in the order of tables."""
    every: dict[str, str] = {}
    for evaluation in evaluations.values():
        every |= evaluation.methods
    order = ("weights", "published", "baseline", "truth")
    return dict(sorted(every.items(), key=lambda method: order.index(method[1])))


def overview(evaluations: Mapping[str, Evaluation], parts: Mapping[str, Part]) -> list[Column]:
    """Return the columns of the table of all parts: the measures of each part's overview, or all of its measures."""
    columns = []
    for part, evaluation in evaluations.items():
        names = parts[part].overview or evaluation.measures
        for name in (name for name in names if name in evaluation.measures):
            values = {method: printed(evaluation, method, name) for method in evaluation.methods}
            columns.append(Column(part, MEASURES[name], values, ranked(evaluation, name)))
    return columns


def choose(evaluation: Evaluation, count: int) -> list[Record]:
    """Return at most ``count`` cases: half of them evenly spaced, the others the worst by each measure and method."""
    records = evaluation.records
    if count >= len(records):
        return records
    if count < 1:
        return []
    chosen = set(spread(len(records), (count + 1) // 2))
    orders = []
    for measure in _of_pictures(evaluation):
        for method in evaluation.methods:
            values = [(record.figures.get(method, {}).get(measure), place) for place, record in enumerate(records)]
            badness = [(MEASURES[measure].badness(value), place) for value, place in values if value is not None]
            if method != TRUTH:
                orders.append([place for _, place in sorted(badness, reverse=True)])
    for rank in range(len(records)):
        for order in orders:
            if len(chosen) < count and rank < len(order):
                chosen.add(order[rank])
    return [records[place] for place in sorted(chosen)]


def ranked(evaluation: Evaluation, measure: str) -> list[str]:
    """Return the methods with the best value of a measure; none if the measure does not decide by itself.

    The truth is not a candidate.
    """
    if not MEASURES[measure].decides:
        return []
    values = {name: means[measure] for name, means in evaluation.summary.items() if name != TRUTH and measure in means}
    return best(measure, values)


def printed(evaluation: Evaluation, method: str, measure: str) -> str:
    """Return a method's value over all cases as printed; empty if there is none."""
    value = evaluation.summary[method].get(measure)
    return "" if value is None else f"{value:.{MEASURES[measure].digits}f}"


def _of_pictures(evaluation: Evaluation) -> list[str]:
    """Return the measures of single pictures."""
    present = {measure for record in evaluation.records for figures in record.figures.values() for measure in figures}
    return [measure for measure in evaluation.measures if measure in present]


def _links(parts: Mapping[str, Part]) -> str:
    links = "".join(f"<a href=#{escape(name)}>{escape(part.title)}</a>" for name, part in parts.items())
    return f"<nav>{links}</nav>\n"


def _overview(columns: Sequence[Column], kinds: Mapping[str, str], parts: Mapping[str, Part]) -> str:
    counts = Counter(column.part for column in columns)
    groups = "".join(f"<th colspan={count}>{escape(parts[part].title)}</th>" for part, count in counts.items())
    head = "".join(_heading(column.measure, column.part != before) for before, column in _with_part_before(columns))
    rows = []
    for method, kind in kinds.items():
        cells = ""
        for before, column in _with_part_before(columns):
            classes = " ".join(["best"] * (method in column.best) + ["first"] * (column.part != before))
            cells += f"<td class='{classes}'>{column.values.get(method) or '–'}</td>"
        rows.append(f"<tr class={kind}><th>{escape(method)}</th>{cells}</tr>\n")
    return (
        "<div class=wide><table class=overview>\n<thead>"
        f"<tr class=groups><th></th>{groups}</tr><tr><th></th>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody></table></div>\n"
    )


def _with_part_before(columns: Sequence[Column]) -> list[tuple[str | None, Column]]:
    return list(zip([None, *(column.part for column in columns)], columns, strict=False))


def _heading(measure: Measure, first: bool = False) -> str:
    mark, arrow = " class=first" if first else "", ARROWS[measure.better]
    return f"<th{mark} title='{escape(measure.meaning)}'>{escape(measure.label)}&nbsp;<small>{arrow}</small></th>"


def _means(evaluation: Evaluation) -> str:
    head = "".join(_heading(MEASURES[name]) for name in evaluation.measures)
    winners = {measure: ranked(evaluation, measure) for measure in evaluation.measures}
    rows = []
    for method in evaluation.methods:
        cells = []
        for measure in evaluation.measures:
            mark = " class=best" if method in winners[measure] else ""
            cells.append(f"<td{mark}>{printed(evaluation, method, measure) or '–'}</td>")
        rows.append(f"<tr class={evaluation.methods[method]}><th>{escape(method)}</th>{''.join(cells)}</tr>\n")
    meanings = "".join(
        f"<dt>{escape(MEASURES[name].label)}</dt><dd>{escape(MEASURES[name].meaning)}</dd>"
        for name in evaluation.measures
    )
    return (
        f"<div class=wide><table>\n<thead><tr><th></th>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody></table></div>\n"
        f"<details><summary>Measures</summary><dl>{meanings}</dl></details>\n"
    )


def _left_out(evaluation: Evaluation) -> str:
    if not evaluation.left_out:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in evaluation.left_out)
    return f"<details><summary>{len(evaluation.left_out)} left out</summary><ul>{lines}</ul></details>\n"


def _distributions(evaluation: Evaluation, folded: bool) -> str:
    plots = "".join(_distribution(evaluation, measure) for measure in _of_pictures(evaluation))
    if folded:
        return f"<details><summary>Distributions</summary><div class=plots>\n{plots}</div></details>\n"
    return f"<h2>Distributions</h2>\n<div class=plots>\n{plots}</div>\n"


_LABELS, _PLOT, _STEP, _TOP = 128, 320, 30, 26  # pixels: width of labels and plot, height of a method and of the title


def _distribution(evaluation: Evaluation, measure: str) -> str:
    """Draw the values of a measure, one line per method: points, a box from quartile to quartile, median and mean."""
    values = {}
    for method in evaluation.methods:
        points = [
            (record.figures[method][measure], record.name)
            for record in evaluation.records
            if measure in record.figures.get(method, {})
        ]
        if points:
            values[method] = points
    everything = [value for points in values.values() for value, _ in points]
    least, most = min(everything), max(everything)
    if least == most:
        least, most = least - 0.5, most + 0.5

    def x(value: float) -> str:
        return f"{_LABELS + (value - least) / (most - least) * _PLOT:.1f}"

    bottom = _TOP + _STEP * len(values)
    parts = [
        f"<svg viewBox='0 0 {_LABELS + _PLOT + 12} {bottom + 22}' role=img><title>{escape(measure)}</title>"
        f"<text class=name x=0 y=13>{escape(MEASURES[measure].label)} {ARROWS[MEASURES[measure].better]}</text>"
    ]
    for tick in _ticks(least, most):
        parts.append(
            f"<line class=grid x1={x(tick)} x2={x(tick)} y1={_TOP} y2={bottom} />"
            f"<text class=tick x={x(tick)} y={bottom + 15}>{tick:g}</text>"
        )
    for place, (method, points) in enumerate(values.items()):
        middle = _TOP + _STEP * (place + 0.5)
        numbers = np.array([value for value, _ in points])
        low, median, high = (float(q) for q in np.percentile(numbers, (25, 50, 75)))
        label = method if len(method) <= 19 else f"{method[:18]}…"
        parts.append(f"<g class={evaluation.methods[method]}>")
        parts.append(f"<text class=label x={_LABELS - 10} y={middle + 4}>{escape(label)}</text>")
        for point in spread(len(points), _POINTS):
            value, name = points[point]
            offset = (point * 0.618034 % 1 - 0.5) * _STEP * 0.6  # the golden ratio distributes them evenly
            tooltip = f"<title>{escape(name)}: {value:.4g}</title>"
            parts.append(f"<circle cx={x(value)} cy={middle + offset:.1f} r=2>{tooltip}</circle>")
        width = float(x(high)) - float(x(low))
        parts.append(
            f"<rect x={x(low)} y={middle - 7} width={width:.1f} height=14 rx=2 />"
            f"<line class=median x1={x(median)} x2={x(median)} y1={middle - 7} y2={middle + 7} />"
            f"<circle class=mean cx={x(float(numbers.mean()))} cy={middle} r=3.5 /></g>"
        )
    return "".join(parts) + "</svg>\n"


def _ticks(least: float, most: float) -> list[float]:
    """Return three to seven round numbers within a range."""
    rough = (most - least) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = int(np.ceil(least / step))
    return [round(i * step, 10) for i in range(first, int(np.floor(most / step)) + 1)]


def _controls(evaluation: Evaluation, shown: int, chosen: Sequence[str]) -> str:
    total = len(evaluation.records)
    count = f"{total}" if shown == total else f"{shown} of {total}: half spread evenly, half the worst by some measure"
    measures = "".join(
        f"<option value={name}{' selected' * (name in chosen)}>{escape(MEASURES[name].label)}</option>"
        for name in _of_pictures(evaluation)
    )
    methods = "".join(f"<option>{escape(name)}</option>" for name in evaluation.methods)
    return (
        f"<h3>Pictures <small>{count}</small></h3>\n<form class=controls>"
        "<label>order <select name=order><option value=0>as in the folder</option><option value=1>worst first</option>"
        "<option value=-1>best first</option></select></label> "
        f"<label>by <select name=measure>{measures}</select></label> "
        f"<label>of <select name=method>{methods}</select></label>"
        "<span class=hint>Click a picture to compare it with the target.</span></form>\n<div class=rows>\n"
    )


def _row(record: Record, columns: Sequence[str], folder: Path) -> str:
    cells = []
    for name in columns:
        if name not in record.columns:
            cells.append("<figure></figure>")
            continue
        encoded = base64.b64encode(kept(folder, record.number, record.columns.index(name)).read_bytes()).decode()
        label = escape(name)
        cells.append(
            f"<figure><button data-name='{label}'><img alt='{label}' src='data:image/jpeg;base64,{encoded}'></button>"
            f"<figcaption>{label} <b></b></figcaption></figure>"
        )
    return f"<article data-number={record.number}><h3>{escape(record.name)}</h3><div>{''.join(cells)}</div></article>\n"


def _data(evaluation: Evaluation, shown: Sequence[Record]) -> str:
    """Return the JSON for the page's script: the measures, and the values of the cases shown."""
    measures = {name: MEASURES[name] for name in _of_pictures(evaluation)}
    content = {
        "measures": {name: {"better": measure.better, "digits": measure.digits} for name, measure in measures.items()},
        "figures": {str(record.number): record.figures for record in shown},
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")  # a name must not close the script element


_VIEWER = """<dialog id=viewer><form method=dialog>
<header><h3></h3><button aria-label=close>✕</button></header>
<div class=stage><img alt=""><img alt=""><i></i></div>
<input type=range min=0 max=1000 value=500 aria-label="how much of either">
<footer>
<select aria-label=left></select><span>← slide → · ↑ ↓ other pictures</span><select aria-label=right></select>
</footer>
</form></dialog>
"""

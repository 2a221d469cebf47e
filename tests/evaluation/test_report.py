"""The page: whole, without any address, with its rows, whatever the names; and which cases it shows."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pdnla.evaluation.report import PageContents, choose, overview, ranked, write_metrics, write_page
from pdnla.evaluation.results import Evaluation, Record, kept
from pdnla.evaluation.suite import Part

METHODS = {"net": "weights", "grey": "baseline", "truth": "truth"}


def evaluation(count: int, folder: Path | None = None) -> Evaluation:
    """Return cases whose result gets worse with their number, and their pictures in ``folder``."""
    columns = ("target", "reference", "net", "grey", "truth")
    records = []
    for number in range(count):
        ours = {"psnr": 40.0 - number / 10, "his": 0.5, "colourfulness_ratio": 1 + number / 100}
        figures = {"net": ours, "grey": {"psnr": 20.0, "his": 0.1}, "truth": {"his": 0.9}}
        records.append(Record(number, f"<b>{number}</b> & co.jpg", figures, columns))
        for column in range(len(columns) if folder else 0):
            assert folder
            folder.mkdir(exist_ok=True)
            Image.new("RGB", (8, 6), (number % 256, column, 0)).save(kept(folder, number, column))
    averages = {"net": {"psnr": 35.0, "his": 0.5, "frechet_efficientnet": 3.0}, "grey": {"psnr": 20.0, "his": 0.1}}
    measures = ["psnr", "his", "colourfulness_ratio", "frechet_efficientnet"]
    return Evaluation(METHODS, measures, averages | {"truth": {"his": 0.9}}, records, ["x.png: is grey <really>"])


class Parsed(HTMLParser):
    """Counts elements and keeps every address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "srcset")]


@pytest.fixture
def page(tmp_path: Path) -> str:
    actual = evaluation(6, tmp_path / "kept")
    how = PageContents("A <title>", ["6 pictures"], "key: <value>", tmp_path, 100)
    write_page(tmp_path / "report.html", {"kept": actual}, {"kept": Part(actual.records, "kept")}, how)
    return (tmp_path / "report.html").read_text()


def test_the_page_needs_nothing_else(page: str) -> None:
    parsed = Parsed(page)
    assert len(parsed.addresses) == 6 * 5
    assert all(address.startswith("data:image/jpeg;base64,") for address in parsed.addresses)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert page.rstrip().endswith("</html>")


def test_the_page_has_a_row_for_each_case_a_plot_for_each_measure_and_the_table(page: str) -> None:
    parsed = Parsed(page)
    assert parsed.elements.count("article") == 6
    assert parsed.elements.count("svg") == 3  # the Fréchet distance is of the set
    assert parsed.elements.count("dialog") == 1
    assert parsed.elements.count("table") == 1
    assert parsed.elements.count("tr") == 1 + 3
    assert re.search(r"<tr class=weights><th>net</th><td class=best>35.00</td>", page)
    assert "<td class=best>0.900</td>" not in page  # the truth does not compete


def test_names_are_text_and_never_markup(page: str) -> None:
    assert "<b>0</b>" not in page
    assert "&lt;b&gt;0&lt;/b&gt; &amp; co.jpg" in page
    assert "<really>" not in page
    assert "<value>" not in page
    assert "<title>A &lt;title&gt;</title>" in page
    (actual,) = re.findall(r"<script type=application/json class=data>(.*?)</script>", page)
    assert json.loads(actual)["figures"]["5"]["net"]["psnr"] == 39.5


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_one(page: str, tmp_path: Path) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (tmp_path / "page.js").write_text(script)
    subprocess.run(["node", "--check", "page.js"], cwd=tmp_path, check=True)


def test_of_many_cases_those_spread_evenly_and_the_worst_are_shown() -> None:
    actual = choose(evaluation(1000), 10)
    numbers = [record.number for record in actual]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert {0, 200, 400, 600, 800} < set(numbers)
    assert {999, 998} < set(numbers)
    assert choose(evaluation(5), 10) == evaluation(5).records
    assert choose(evaluation(5), 0) == []


def test_a_page_without_pictures_has_the_table_and_the_plots(tmp_path: Path) -> None:
    actual = evaluation(300)
    how = PageContents("none", [], "", tmp_path, 0)
    write_page(tmp_path / "report.html", {"it": actual}, {"it": Part(actual.records, "it")}, how)
    parsed = Parsed((tmp_path / "report.html").read_text())
    assert parsed.elements.count("svg") == 3
    assert "article" not in parsed.elements
    assert "script" not in parsed.elements
    assert parsed.elements.count("circle") <= 3 * 3 * 101  # however many cases


def test_the_truth_does_not_compete_and_intersection_decides_nothing() -> None:
    assert ranked(evaluation(2), "psnr") == ["net"]
    assert ranked(evaluation(2), "his") == []


def test_a_suite_has_one_page_a_table_of_all_parts_and_one_a_part(tmp_path: Path) -> None:
    parts = {
        "one": Part([], "The <first>", "What it is.", ("psnr", "ciede2000")),
        "other": Part([], "The other", "", ("his",)),
    }
    actual = {name: evaluation(count, tmp_path / name) for name, count in (("one", 3), ("other", 2))}
    columns = overview(actual, parts)
    assert [(column.part, column.measure.name, column.best) for column in columns] == [
        ("one", "psnr", ["net"]),
        ("other", "his", []),
    ]
    assert columns[0].values == {"net": "35.00", "grey": "20.00", "truth": ""}
    write_page(tmp_path / "report.html", actual, parts, PageContents("suite", [], "", tmp_path, 100))
    text = (tmp_path / "report.html").read_text()
    parsed = Parsed(text)
    assert parsed.elements.count("table") == 1 + 2
    assert parsed.elements.count("section") == 2
    assert parsed.elements.count("article") == 3 + 2
    assert parsed.elements.count("dialog") == 1
    assert text.count("<script>") == 1
    assert "The &lt;first&gt;" in text
    assert "<option value=psnr selected>" in text
    write_metrics(actual, tmp_path, {}, {"pdnla": "x"})
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["parts"]["other"]["pictures"] == 2
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == ["one"] * 9 + ["other"] * 6


def test_metrics_hold_every_figure(tmp_path: Path) -> None:
    actual = evaluation(3)
    write_metrics({"it": actual}, tmp_path, {"size": 512}, {"pdnla": "x"})
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["configuration"] == {"size": 512}
    assert content["means"]["net"]["frechet_efficientnet"] == 3.0
    assert content["figures"]["<b>2</b> & co.jpg"]["net"] == actual.records[2].figures["net"]
    assert content["left_out"] == actual.left_out
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3
    assert rows[0] == {
        "picture": "<b>0</b> & co.jpg",
        "method": "net",
        "psnr": "40.0",
        "his": "0.5",
        "colourfulness_ratio": "1.0",
    }
    assert rows[2]["psnr"] == ""

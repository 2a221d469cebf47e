"""The page in a real browser, Chromium, with the small network of the other tests."""

import contextlib
import io
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra pdnla[web] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
PATIENCE = 120_000  # milliseconds; how busy the machine is decides no test


class Visitor:
    """A person with a browser window of their own, who clicks and reads."""

    def __init__(self, browser: Any, url: str) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.page.goto(url)
        self.page.wait_for_selector("#still-colour")

    def send(self, name: str, *paths: Path) -> None:
        self.page.set_input_files(f"#{name} input[type=file]", [str(path) for path in paths])

    def wait(self, script: str) -> None:
        self.page.wait_for_function(script)

    def click_image(self, name: str, x: float, y: float) -> None:
        image = self.page.locator(f"#{name} img")
        image.scroll_into_view_if_needed()
        box = image.bounding_box()
        image.click(position={"x": box["width"] * x, "y": box["height"] * y})

    def text(self, name: str) -> str:
        return str(self.page.input_value(f"#{name} textarea"))

    def wait_text(self, name: str, start: str) -> None:
        self.wait(f"document.querySelector('#{name} textarea')?.value.startsWith({start!r})")

    def shown(self, name: str, number: int = -1) -> np.ndarray:
        """The pixels of an image of the page."""
        images = self.page.locator(f"#{name} img")
        address = images.nth(number if number >= 0 else images.count() - 1).get_attribute("src")
        return np.asarray(Image.open(io.BytesIO(self.page.request.get(address).body())).convert("RGB"), int)

    def changed(self, name: str, change: Callable[[], None]) -> np.ndarray:
        """Do something, wait until an image shows something else, and return that."""
        source = f"[...document.querySelectorAll('#{name} img')].at(-1)?.src"
        before = self.page.evaluate(source)
        change()
        self.wait(f"({source} ?? '') !== {before or ''!r}")
        return self.shown(name)

    def download(self, name: str, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.click(f"#{name}")
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def colour(self, target: Path, *references: Path) -> np.ndarray:
        self.send("still-target", target)
        self.send("still-references", *references)
        self.wait(f"document.querySelectorAll('#still-candidates button img').length >= {min(len(references), 5)}")
        return self.changed("still-result", lambda: self.page.click("#still-colour"))

    def leave(self) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, serving: Any) -> Iterator[Callable[[], Visitor]]:
    visitors: list[Visitor] = []

    def arrive() -> Visitor:
        visitors.append(Visitor(browser, serving.url))
        return visitors[-1]

    yield arrive
    for visitor in visitors:
        visitor.leave()


def colourfulness(picture: np.ndarray) -> float:
    return float((picture.max(axis=-1) - picture.min(axis=-1)).mean())


@contextlib.contextmanager
def held(network: Any) -> Iterator[threading.Event]:
    """Hold the network up until the block ends; the event tells that it was called."""
    begun, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert goes_on.wait(120)

    network.before = hold
    try:
        yield begun
    finally:
        goes_on.set()
        network.before = lambda: None


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_picture_is_coloured_compared_adjusted_corrected_undone_and_saved(
    visit: Callable[[], Visitor], pictures: Path, tmp_path: Path, serving: Any
) -> None:
    visitor = visit()
    page = visitor.page
    coloured = visitor.colour(pictures / "described.jpg", pictures / "mirrored.jpg", pictures / "coffee.png")
    assert "mirrored.jpg · 0." in page.inner_text("#still-candidates")
    assert colourfulness(coloured) > 10
    visitor.wait("document.querySelectorAll('#still-used button img').length === 1")
    assert "mirrored.jpg · 0." in page.inner_text("#still-used"), (
        "beside the result is the reference that it is made with"
    )
    visitor.wait("document.querySelectorAll('#still-compare img').length === 2")
    assert colourfulness(visitor.shown("still-compare", 0)) == 0
    assert colourfulness(visitor.shown("still-compare", 1)) > 10

    handle = page.locator("#still-compare .icon-wrap")
    handle.scroll_into_view_if_needed()
    place = handle.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(place["x"] - 40, place["y"] + place["height"] / 2, steps=4)
    page.mouse.up()
    assert handle.bounding_box()["x"] < place["x"] - 20, "the handle follows"

    visitor.click_image("still-result", 0.2, 0.75)
    visitor.wait_text("still-where", "This colour comes from the marked place in mirrored.jpg")
    marked = visitor.shown("still-result")
    page.locator("#still-candidates button:has(img)").nth(1).click()
    visitor.wait("document.querySelector('#still-candidates button.selected img') !== null")
    other = np.asarray(Image.open(pictures / "coffee.png")).shape[:2]
    until(lambda: visitor.shown("still-reference").shape[:2] == other)
    assert "Reference: coffee.png" in page.inner_text("#still-reference")
    corrected = visitor.changed("still-result", lambda: visitor.click_image("still-reference", 0.5, 0.85))
    visitor.wait_text("still-where", "Corrected: this colour comes from the marked place in coffee.png")
    difference = np.abs(corrected - marked).sum(axis=-1) > 40
    assert difference[80:110, 15:40].any(), "the region follows"
    assert difference[:, 64:].mean() < 0.02, "the rest stays"

    pale = visitor.changed("still-result", lambda: page.fill("#still-saturation input[type=number]", "10"))
    assert colourfulness(pale) < 0.3 * colourfulness(corrected)
    with Image.open(visitor.download("still-save", tmp_path)) as saved:
        assert (Path(saved.filename).name, saved.size) == ("described_colorized.jpg", (128, 128))
        assert saved.getexif()[0x010E] == "Portrait"
    visitor.changed("still-result", lambda: page.click("#still-undo"))
    visitor.wait_text("still-where", "This colour comes from the marked place in mirrored.jpg")
    page.click("#still-undo")
    visitor.wait_text("still-message", "there is no correction to undo")

    assert {urlparse(request).netloc for request in visitor.requests if not request.startswith(("data:", "blob:"))} == {
        urlparse(serving.url).netloc
    }, "nothing is asked of other hosts"
    assert visitor.errors == []


def test_thumbnails_are_whole_and_one_button_downloads(visit: Callable[[], Visitor], pictures: Path) -> None:
    visitor = visit()
    page = visitor.page
    names = ["mirrored.jpg", "coffee.png", "chelsea.png", "rocket.png", "astronaut.png"]

    def are_whole(count: int) -> None:
        """Each thumbnail is in the gallery, below its label, and shows its score."""
        gallery = page.locator("#still-candidates").bounding_box()
        label = page.locator("#still-candidates [data-testid=block-label]").bounding_box()
        images = page.locator("#still-candidates button img")
        assert images.count() == count
        for number in range(count):
            box = images.nth(number).bounding_box()
            assert box["y"] >= label["y"] + label["height"]
            assert box["x"] + box["width"] <= gallery["x"] + gallery["width"]
            assert box["y"] + box["height"] <= gallery["y"] + gallery["height"]
        for caption in page.locator("#still-candidates .caption-label").all():
            assert caption.evaluate("element => element.scrollWidth <= element.clientWidth")

    visitor.colour(pictures / "described.jpg", pictures / "mirrored.jpg")
    are_whole(1)
    visitor.send("still-references", *[pictures / name for name in names])
    visitor.wait("document.querySelectorAll('#still-candidates button img').length === 5")
    are_whole(5)
    visitor.changed("still-result", lambda: page.click("#still-colour"))
    assert page.get_by_role("button", name="Download", exact=True).count() == 1
    page.wait_for_selector("#still-full", state="hidden")  # all pixels of a small picture are shown


def test_what_has_no_content_yet_is_not_shown(visit: Callable[[], Visitor], pictures: Path) -> None:
    page = visit().page
    shown = {"Still": ("colour", "target", "references"), "Album": ("start", "targets"), "Film": ("find", "target")}
    not_shown = {
        "Still": ("candidates", "together", "message", "used", "compare", "saturation", "save", "result", "undo"),
        "Album": ("archive", "failed", "coloured"),
        "Film": ("frames", "shots", "start", "file"),
    }
    for tab in shown:
        page.get_by_role("tab", name=tab).click()
        for name in shown[tab]:
            page.wait_for_selector(f"#{tab.lower()}-{name}")
        for name in not_shown[tab]:
            page.wait_for_selector(f"#{tab.lower()}-{name}", state="hidden")
            assert page.locator(f"#{tab.lower()}-{name}").count() == 1, name


def test_what_takes_long_is_announced(visit: Callable[[], Visitor], pictures: Path, network: Any) -> None:
    visitor = visit()
    visitor.send("still-target", pictures / "described.jpg")
    visitor.send("still-references", pictures / "mirrored.jpg")
    visitor.wait("document.querySelectorAll('#still-candidates button img').length === 1")
    with held(network):
        visitor.page.click("#still-colour")
        visitor.wait_text("still-message", "Colouring")
    visitor.page.wait_for_selector("#still-result img")
    visitor.page.wait_for_selector("#still-message", state="hidden")


def test_a_folder_of_references_is_listed_without_what_is_no_picture(
    visit: Callable[[], Visitor], pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "references"
    folder.mkdir()
    for name in ("mirrored.jpg", "coffee.png", "broken.jpg"):
        shutil.copy(pictures / name, folder)
    for name in ("notes.txt", ".DS_Store"):
        (folder / name).write_bytes(b"notes")
    visitor = visit()
    visitor.send("still-target", pictures / "described.jpg")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.locator("#still-folder").click()
    chooser.value.set_files(folder)
    visitor.wait("document.querySelectorAll('#still-candidates button img').length === 2")
    visitor.wait_text("still-message", "left out: broken.jpg")
    assert "notes.txt" not in visitor.text("still-message")
    assert ".DS_Store" not in visitor.text("still-message")
    assert visitor.page.locator("#still-references .file").count() == 3
    assert visitor.errors == []


def test_numbers_that_are_out_of_range_count_as_the_nearest(visit: Callable[[], Visitor], pictures: Path) -> None:
    visitor = visit()
    plain = visitor.colour(pictures / "described.jpg", pictures / "mirrored.jpg")
    field = "#still-saturation input[type=number]"
    strong = visitor.changed("still-result", lambda: visitor.page.fill(field, "500"))
    assert colourfulness(strong) > 1.2 * colourfulness(plain)
    none = visitor.changed("still-result", lambda: visitor.page.fill(field, ""))
    assert colourfulness(none) < 1
    assert visitor.page.locator(".toast-body").count() == 0


def test_an_album_with_a_broken_file_is_coloured_but_for_that(
    visit: Callable[[], Visitor], pictures: Path, tmp_path: Path
) -> None:
    visitor = visit()
    odd = tmp_path / "<img src=x onerror=alert(1)>.png"
    odd.write_bytes((pictures / "rocket_grey.png").read_bytes())
    visitor.page.get_by_role("tab", name="Album").click()
    visitor.send("album-targets", pictures / "astronaut_grey.png", pictures / "broken.jpg", odd)
    visitor.send("album-references", pictures / "mirrored.jpg", pictures / "rocket.png")
    visitor.wait("document.querySelectorAll('#album-references .file').length === 2")
    visitor.wait("document.querySelectorAll('#album-targets .file').length === 3")
    visitor.page.click("#album-start")
    visitor.wait_text("album-message", "3 of 3: 2 coloured, 1 failed")
    visitor.page.wait_for_selector("#album-archive")
    name, why = (visitor.page.locator(f"#album-failed [data-testid=cell-0-{column}]") for column in (0, 1))
    assert name.inner_text().strip() == "broken.jpg"
    assert why.inner_text().strip().startswith("is truncated or damaged"), "the name is beside it"
    archive = visitor.download("album-archive", tmp_path)
    with zipfile.ZipFile(archive) as file:
        names = set(file.namelist())
        assert {"astronaut_grey.png", "failed.csv"} < names
        assert len(names) == 3
        with Image.open(io.BytesIO(file.read("astronaut_grey.png"))) as result:
            assert colourfulness(np.asarray(result.convert("RGB"), int)) > 10
    assert visitor.page.locator("img[src=x]").count() == 0, "names are text"
    assert visitor.errors == []


def test_an_album_that_is_stopped_offers_what_is_coloured(
    visit: Callable[[], Visitor], pictures: Path, tmp_path: Path, network: Any
) -> None:
    visitor = visit()
    page = visitor.page
    page.get_by_role("tab", name="Album").click()
    visitor.send("album-targets", *[pictures / "astronaut_grey.png"] * 3)
    visitor.send("album-references", pictures / "coffee.png")
    visitor.wait("document.querySelectorAll('#album-targets .file').length === 3")
    visitor.wait("document.querySelectorAll('#album-references .file').length === 1")
    with held(network) as begun:
        page.click("#album-start")
        assert begun.wait(120)
        page.click("#album-stop")
        visitor.wait_text("album-message", "Stopping after this picture.")
    visitor.wait_text("album-message", "Stopped. 1 of 3: 1 coloured, 0 failed")
    with zipfile.ZipFile(visitor.download("album-archive", tmp_path)) as file:
        assert file.namelist() == ["astronaut_grey.png"]
    assert page.get_by_text("Error", exact=True).count() == 0


def test_a_film_is_coloured_with_references_that_were_changed(
    visit: Callable[[], Visitor], pictures: Path, tmp_path: Path, clip: Path
) -> None:
    visitor = visit()
    page = visitor.page
    page.get_by_role("tab", name="Film").click()
    visitor.send("film-target", clip)
    visitor.send("film-references", pictures / "coffee.png", pictures / "mirrored.jpg")
    visitor.wait("document.querySelectorAll('#film-references .file').length === 2")
    visitor.wait("document.querySelectorAll('#film-target .file').length === 1")
    page.click("#film-find")
    visitor.wait_text("film-message", "2 shots found.")
    visitor.wait_text("film-legend", "1: coffee.png, 2: mirrored.jpg")
    visitor.wait("document.querySelectorAll('#film-frames img').length >= 2")
    cell = page.locator("#film-shots [data-testid='cell-0-2']")
    assert cell.inner_text().strip() == "2"

    def change(number: str) -> None:
        """Type into the cell as people do: again, where the table was not ready yet."""

        def changed() -> bool:
            cell.dblclick()
            page.keyboard.press("Control+A")
            page.keyboard.type(number)
            page.keyboard.press("Enter")
            page.wait_for_timeout(300)
            text: str = cell.locator("span[data-editable]").inner_text()
            return text.strip() == number

        until(changed)

    change("3")
    page.click("#film-start")
    visitor.wait_text("film-message", "shot 0 to 5: there is no reference 3; give numbers from 1 to 2")
    change("1")
    page.click("#film-start")
    visitor.wait("document.querySelector('#film-result video')?.videoWidth === 96")
    assert visitor.download("film-file", tmp_path).name == "two shots_colorized.mp4"
    assert visitor.errors == []


def test_a_refused_upload_says_why_and_another_one_is_taken(
    visit: Callable[[], Visitor], pictures: Path, tmp_path: Path
) -> None:
    visitor = visit()
    large = tmp_path / "large.png"
    large.write_bytes((pictures / "rocket_grey.png").read_bytes() + bytes(1_100_000))
    visitor.send("still-target", large)
    visitor.page.get_by_text("maximum allowed size").first.wait_for()
    visitor.page.reload()
    visitor.page.wait_for_selector("#still-colour")
    visitor.send("still-target", pictures / "broken.jpg")
    visitor.wait_text("still-message", "broken.jpg: is truncated or damaged")
    visitor.page.click("#still-colour")
    visitor.wait_text("still-message", "there is no grey picture; choose one first")
    assert visitor.page.locator(".toast-body").count() == 0, "it is said once"
    assert visitor.page.locator("#still-target button[aria-label=Clear]").count() == 0, "it is not listed as taken"
    assert colourfulness(visitor.colour(pictures / "rocket_grey.png", pictures / "rocket.png")) > 3


def test_two_people_at_once_have_their_own_pictures(visit: Callable[[], Visitor], pictures: Path, serving: Any) -> None:
    first, second = visit(), visit()
    for visitor, name in ((first, "astronaut"), (second, "coffee")):
        visitor.send("still-target", pictures / f"{name}_grey.png")
        visitor.send("still-references", pictures / f"{name}.png")
        visitor.wait("document.querySelectorAll('#still-candidates button img').length >= 1")
    for visitor in (first, second):
        visitor.page.click("#still-colour")
    for visitor, name in ((first, "astronaut"), (second, "coffee")):
        visitor.page.wait_for_selector("#still-result img")
        truth = np.asarray(Image.open(pictures / f"{name}.png").convert("RGB"), int)
        result = visitor.shown("still-result")
        assert result.shape == truth.shape
        assert np.abs(result - truth).mean() < 20, name
    assert len(serving.app.state.sessions) == 2
    first.leave()
    until(lambda: len(serving.app.state.sessions) == 1)
    second.changed("still-result", lambda: second.page.fill("#still-saturation input[type=number]", "50"))


def test_closing_the_page_in_mid_work_stops_it_and_removes_its_files(
    visit: Callable[[], Visitor], pictures: Path, serving: Any, network: Any
) -> None:
    visitor = visit()
    visitor.page.get_by_role("tab", name="Album").click()
    visitor.send("album-targets", *[pictures / "astronaut_grey.png"] * 8)
    visitor.send("album-references", pictures / "coffee.png")
    visitor.wait("document.querySelectorAll('#album-targets .file').length === 8")
    visitor.wait("document.querySelectorAll('#album-references .file').length === 1")
    calls = network.calls
    with held(network) as begun:
        visitor.page.click("#album-start")
        assert begun.wait(120)
        visitor.leave()
        until(lambda: len(serving.app.state.sessions) == 0)
    until(lambda: len(serving.studio.turns) == 0)
    time.sleep(1.0)  # in which a further picture would begin
    assert network.calls - calls <= 2
    assert not list((serving.folder / "sessions").iterdir())

"""Take docs/web.jpg: the page ``pdnla-web`` in Chromium, with scikit-image's motorcycle seen from two places.

pdnla-web --port 7860 --no-browser &
python scripts/web_screenshot.py http://127.0.0.1:7860/ docs/web.jpg
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage import data

WIDTH, SAVED_WIDTH = 1100, 800
PATIENCE = 300_000  # milliseconds
MUDGUARD, SAME_PLACE = (0.79, 0.575), (0.74, 0.57)  # in the left and the right view


def main(url: str, out: Path) -> None:
    left, right, _ = data.stereo_motorcycle()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        files = Path(folder)
        Image.fromarray(left).convert("L").save(files / "motorcycle.png")
        Image.fromarray(right).save(files / "right view.png")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.set_input_files("#still-target input[type=file]", str(files / "motorcycle.png"))
        page.set_input_files("#still-references input[type=file]", str(files / "right view.png"))
        page.wait_for_selector("#still-candidates img")
        page.click("#still-colour")
        page.wait_for_selector("#still-result img")
        click(page, "still-result", *MUDGUARD)
        page.wait_for_function("document.querySelector('#still-where textarea').value.includes('similarity')")
        click(page, "still-reference", *SAME_PLACE)
        page.wait_for_function("document.querySelector('#still-where textarea').value.startsWith('Corrected')")
        page.wait_for_timeout(3000)
        shot = files / "page.png"
        page.screenshot(path=shot, full_page=True)
        browser.close()
        picture = Image.open(shot).convert("RGB")
        picture.thumbnail((SAVED_WIDTH, picture.height), Image.Resampling.LANCZOS)
        picture.save(out, quality=82, optimize=True)


def click(page: Page, name: str, x: float, y: float) -> None:
    image = page.locator(f"#{name} img")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    assert box is not None
    image.click(position={"x": box["width"] * x, "y": box["height"] * y})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""What the tests of the web page share: a studio with a small network, and pictures."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from skimage import data
from torch import Tensor

from pdnla.backbones import load_backbone
from pdnla.inference.colorizer import Colorizer
from pdnla.network.semantic import SemanticWarp
from pdnla.web.studio import Studio
from pdnla.web.uploads import Limits

SIDE = 96


class CountingWarp(SemanticWarp):
    """Semantic correspondence at a small size, which counts its calls and tells of each."""

    def __init__(self) -> None:
        super().__init__(load_backbone())
        self.correspondence.side = SIDE
        self.calls = 0
        self.before: Callable[[], None] = lambda: None

    def __deepcopy__(self, memo: object) -> "CountingWarp":
        return self

    def chroma(self, target: Tensor, reference: object) -> Tensor:
        self.before()
        self.calls += 1
        return super().chroma(target, reference)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page refuses files where less than a gigabyte is free, which this machine's disk shall not decide."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**12))


@pytest.fixture(scope="session")
def network() -> CountingWarp:
    return CountingWarp()


@pytest.fixture(scope="session")
def colorizer(network: CountingWarp) -> Colorizer:
    return Colorizer(network, device="cpu", precision="float32", size=SIDE)


@pytest.fixture
def studio(colorizer: Colorizer) -> Studio:
    return Studio(colorizer)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with grey pictures and references, small ones of scikit-image's photographs, and odd files."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        photograph = Image.fromarray(getattr(data, name)())
        photograph.thumbnail((128, 128))
        photograph.save(folder / f"{name}.png")
        photograph.convert("L").save(folder / f"{name}_grey.png")
    astronaut = Image.open(folder / "astronaut.png")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=95)
    grey = astronaut.convert("L")
    exif = Image.Exif()
    exif[0x010E] = "Portrait"  # ImageDescription
    grey.save(folder / "described.jpg", exif=exif, dpi=(300, 300))
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    whole = (folder / "described.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    grey.save(folder / "pages.tif", save_all=True, append_images=[grey.rotate(180)])
    grey.convert("P").save(folder / "still.gif")
    grey.convert("P").save(folder / "moving.gif", save_all=True, append_images=[grey.rotate(90).convert("P")])
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A grey clip of two shots, the astronaut and then the coffee, of six frames each."""
    av = pytest.importorskip("av", reason="the extra pdnla[film] is not installed")
    pytest.importorskip("cv2", reason="the extra pdnla[film] is not installed")
    path = tmp_path_factory.mktemp("clip") / "two shots.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(12):
            name = "astronaut_grey.png" if number < 6 else "coffee_grey.png"
            picture = Image.open(pictures / name).resize((128, 96)).crop((number, 10, 96 + number, 74))
            for packet in stream.encode(av.VideoFrame.from_image(picture.convert("RGB"))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


class Serving(NamedTuple):
    """A page that is being served: its address, its application, and what its users share."""

    url: str
    app: Any
    studio: Studio
    folder: Path


@pytest.fixture(scope="session")
def serving(colorizer: Colorizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Serve the page in a thread, for files of up to 1 MB."""
    pytest.importorskip("gradio", reason="the extra pdnla[web] is not installed")
    import uvicorn

    from pdnla.web.server import Address, build_app, listen

    folder = tmp_path_factory.mktemp("served")
    studio = Studio(colorizer, Limits(megabytes=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # which build_app sets, so that it is set back
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        app = build_app(studio, Address(), folder)
        listening = listen(Address(port=0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Serving(f"http://127.0.0.1:{listening.getsockname()[1]}/", app, studio, folder)
        server.should_exit = True
        thread.join()
        listening.close()

"""What several tests of evaluations share: an album, a network, and one evaluation of them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from pdnla import PDNLA
from pdnla.evaluation.protocols import WarpedPairs
from pdnla.evaluation.results import Evaluation
from pdnla.evaluation.runner import Settings, evaluate
from pdnla.evaluation.scoring import Scorer
from pdnla.weights import save_weights


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, a grey picture and a broken one."""
    folder = tmp_path_factory.mktemp("album")
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).resize((72, 64)).save(folder / f"{name}.png")
    Image.new("L", (64, 64), 90).save(folder / "grey.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Methods that take a moment: an untrained network and two baselines, without pictures."""
    file = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(0)
    save_weights(PDNLA(4), file, "a test")
    return Settings({"net": str(file)}, ("grey", "luminance_rank"), size=32, device="cpu", precision="float32", side=0)


@pytest.fixture(scope="session")
def warped_pairs(album: Path) -> WarpedPairs:
    return WarpedPairs(album, size=32)


class Evaluated:
    """An evaluation, the progress that was reported, and the folder of its pictures."""

    def __init__(self, pairs: WarpedPairs, settings: Settings, folder: Path) -> None:
        self.progress: list[int] = []
        self.folder = folder
        self.evaluation: Evaluation = evaluate({"pairs": pairs}, settings, 1, folder, self.progress.append)["pairs"]


@pytest.fixture(scope="session")
def evaluated(warped_pairs: WarpedPairs, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The album's warped pairs, evaluated once."""
    return Evaluated(warped_pairs, settings._replace(side=16), tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    return Scorer(torch.device("cpu"))

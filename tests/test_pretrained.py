"""The weights that come with the package: there, small, named, described, and better than grey."""

from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from pdnla import PDNLA, Colorizer, load_network
from pdnla.evaluation.metrics import chroma_error
from pdnla.network import SemanticPDNLA, SemanticWarp
from pdnla.network.informed import InformedPDNLA
from pdnla.pretrained import BUNDLED, card, find_weights
from pdnla.weights import save_weights


def photograph(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return image.convert("RGB").resize((256, 176))


def test_they_are_there_and_each_under_20_mb() -> None:
    assert max(find_weights(name).stat().st_size for name in BUNDLED) < 20e6


def test_each_is_the_network_of_its_name_and_default_is_the_informed_one() -> None:
    default, informed, semantic, tiny, warp = (load_network(name) for name in BUNDLED)
    assert isinstance(default, InformedPDNLA)
    assert all(torch.equal(a, b) for a, b in zip(default.parameters(), informed.parameters(), strict=True))
    assert isinstance(informed, InformedPDNLA)
    assert informed.correspondence.metric is not None
    assert isinstance(semantic, SemanticPDNLA)
    assert type(tiny) is PDNLA
    assert isinstance(warp, SemanticWarp)
    assert warp.correspondence.metric is None
    assert informed.channel == semantic.channel == tiny.channel == 8
    for network in (default, semantic, tiny, warp):
        assert not network.training
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_weights(PDNLA(4), "default", "a test")
    network = load_network("default")
    assert isinstance(network, PDNLA)
    assert network.channel == 4


@pytest.mark.parametrize(
    ("weights", "most"), [("default", 0.5), ("semantic_warp", 0.5), ("pdnla_semantic", 0.5), ("pdnla_tiny", 0.8)]
)
def test_they_colour_a_photograph_from_another_view_of_it(weights: str, most: float) -> None:
    truth, reference = photograph("motorcycle_left.png"), photograph("motorcycle_right.png")
    target = truth.convert("L")
    result = Colorizer(weights, size=208)(target, reference)
    error, grey = (
        float(chroma_error(to_tensor(x.convert("RGB"))[None], to_tensor(truth)[None])) for x in (result, target)
    )
    assert error < most * grey


def test_half_precision_is_read_as_what_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PDNLA(4)
    save_weights(network, tmp_path / "half.safetensors", "a test", half=True)
    save_weights(network, tmp_path / "whole.safetensors", "a test")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_network(tmp_path / "half.safetensors").state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.allclose(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def test_the_card_says_what_a_user_must_know() -> None:
    for heading in ("Data", "Training", "Measures", "Limits", "Licence"):
        assert f"## {heading}" in card()

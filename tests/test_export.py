"""Exported networks: the same pictures from another runtime, at any size, or a sentence that says why not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from pdnla import Colorizer, load_network
from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.export import SIZES, CompiledNetwork, OnnxNetwork, export, load_exported, pictures, trace, write_compiled
from pdnla.models import Description, describe
from pdnla.network import PDNLA, SemanticWarp
from pdnla.network.refiner import ColourisationBaseBlock


@pytest.fixture(scope="module")
def net(published_file: Path) -> PDNLA:
    net = load_network(published_file)
    assert isinstance(net, PDNLA)
    return net


@pytest.fixture(scope="module")
def onnx_file(net: PDNLA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "c4.onnx"
    parity = export(net, path, source="the test's")
    assert parity.largest < 1e-4
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", [*SIZES, (1, 160, 16, 16, 160)])
def test_onnx_gives_the_networks_pictures_at_any_size(net: PDNLA, onnx_file: Path, size: tuple[int, ...]) -> None:
    target, reference = pictures(*size)  # type: ignore[misc]
    with torch.inference_mode():
        expected, actual = net(target, reference), load_exported(onnx_file)(target, reference)
    assert (actual.mid - expected.mid).abs().max() < 1e-4 * expected.mid.abs().max()
    assert (actual.out - expected.out).abs().max() < 1e-4 * expected.out.abs().max()


@pytest.mark.slow
def test_onnx_gives_the_published_pictures(
    onnx_file: Path, golden: dict[str, object], golden_images: tuple[Tensor, Tensor]
) -> None:
    expected = torch.tensor(golden["out"])
    assert (load_exported(onnx_file)(*golden_images).out - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.slow
def test_an_onnx_file_says_what_it_holds(onnx_file: Path) -> None:
    network = OnnxNetwork(onnx_file)
    assert network.description == describe(PDNLA(4))
    assert network.precision == "float32"
    assert network.source == "the test's"
    assert [file.name for file in onnx_file.parent.iterdir()] == [onnx_file.name]


@pytest.mark.slow
def test_the_colorizer_runs_an_onnx_file(net: PDNLA, onnx_file: Path) -> None:
    target, reference = (Image.fromarray(picture).resize((90, 70)) for picture in (data.coffee(), data.chelsea()))
    ours = Colorizer(net, device="cpu", precision="float32", size=64)
    theirs = Colorizer(onnx_file, device="cpu", size=64)
    expected, actual = (np.asarray(c(target, reference), np.int16) for c in (ours, theirs))
    assert np.abs(actual - expected).max() <= 1
    theirs.set_reference(reference)
    assert np.array_equal(np.asarray(theirs.colorize(target)), actual)
    kept = theirs.colorize_many([target, target.rotate(180)])
    # ONNX Runtime chooses its kernels by the size of the batch and the threads: rounding may turn a level.
    assert np.abs(np.asarray(kept[0], np.int16) - actual).max() <= 1
    assert kept[1].size == target.size


class Mixture(torch.nn.Module):
    """Compiles in seconds where the network takes minutes."""

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        mid = target * reference.mean(dim=(2, 3), keepdim=True)
        return mid, mid + target


@pytest.mark.slow
def test_a_compiled_package_of_version_0_1_is_run_with_what_it_says_of_itself(tmp_path: Path) -> None:
    batch, side = torch.export.Dim("batch", max=64), torch.export.Dim("side", max=64)
    with torch.no_grad():
        shapes = ({0: batch, 2: 16 * side}, {0: batch})
        program = torch.export.export(Mixture(), pictures(2, 32, 48, 16, 16), dynamic_shapes=shapes)
    path = tmp_path / "mixture.pt2"
    about = {"format": "pdnla", "model": "pdnla", "channel": "8", "precision": "bfloat16", "source": "here"}
    write_compiled(program, path, about)
    network = load_exported(path)
    assert isinstance(network, CompiledNetwork)
    assert network.description == Description("pdnla", {"channel": 8})
    assert network.precision == "bfloat16"
    target, reference = pictures(3, 64, 48, 16, 16)
    actual = network(target, reference[:1])
    assert torch.allclose(actual.out, Mixture()(target, reference[:1])[1], atol=1e-6)
    with pytest.raises(UserError, match=r"was exported in bfloat16; leave --precision out"):
        Colorizer(path, precision="float32")
    with pytest.raises(UserError, match=r"--device cuda:1: \S*mixture\.pt2 was compiled for the CPU; use --device cpu"):
        load_exported(path, torch.device("cuda:1"))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_the_runtime_does_not_have_is_refused(device: str, onnx_file: Path) -> None:
    with pytest.raises(
        UserError, match=rf"--device {device}: ONNX Runtime, which runs \S*c4\.onnx, does not support it here"
    ):
        load_exported(onnx_file, torch.device(device))


@pytest.mark.slow
def test_the_cpu_is_said_where_the_runtime_leaves_a_gpu_alone(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_exported(onnx_file).device == torch.device("cpu")
    assert "c4.onnx runs on the CPU: ONNX Runtime has no CUDA here" in caplog.text


@pytest.mark.slow
def test_an_exported_network_is_not_compiled_again(onnx_file: Path) -> None:
    with pytest.raises(
        UserError, match=r"--compile: \S*c4\.onnx is compiled by its own runtime already; leave --compile"
    ):
        Colorizer(onnx_file, compile=True)


class OneBlock(torch.nn.Module):
    """A block of the network between two convolutions; a trace of the whole network takes half a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(6, 32, 1)
        self.block = ColourisationBaseBlock(32)
        self.last = torch.nn.Conv2d(32, 3, 1)
        self.slope = torch.nn.Parameter(torch.full((1,), 0.25))

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        mean = reference.mean(dim=(2, 3), keepdim=True).expand_as(target)
        mid = self.last(self.block(self.first(torch.cat([target, mean], dim=1)), self.slope))
        return mid, torch.tanh(mid + target)


@pytest.mark.slow
def test_the_traced_network_computes_in_half_precision_where_asked() -> None:
    torch.manual_seed(0)
    net = OneBlock().eval()
    traced = trace(net, torch.bfloat16)
    numbers = [value for value in traced.state_dict.values() if value.is_floating_point()]
    in_float32 = 4 * sum(value.numel() for value in numbers)
    assert sum(value.nbytes for value in numbers) < 0.6 * in_float32
    program = traced.module()
    size = (3, 48, 32, 32, 64)
    with torch.inference_mode():
        exact, half = net(*pictures(*size))[1], program(*pictures(*size))[1]
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 0.05 * exact.std()


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(net: PDNLA, tmp_path: Path) -> None:
    for network, name, precision, sentence in (
        (SemanticWarp(load_backbone()), "a.onnx", "float32", "semantic_warp cannot be exported"),
        (net, "a.engine", "float32", "must end in .onnx or .pt2"),
        (net, "a.onnx", "bfloat16", "ONNX Runtime does not support it"),
    ):
        with pytest.raises(UserError, match=sentence):
            export(network, tmp_path / name, precision)
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_from_the_network_is_not_kept(
    net: PDNLA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdnla.export.trace", lambda *_: None)
    monkeypatch.setattr("pdnla.export.write_onnx", lambda _, path, __: path.write_bytes(b"graph"))
    monkeypatch.setattr("pdnla.export.load_exported", lambda *_: None)
    for wrong in (0.1, float("nan")):
        monkeypatch.setattr("pdnla.export.compare", lambda *_, wrong=wrong: type("P", (), {"largest": wrong})())
        with pytest.raises(UserError, match=r"a\.onnx: its results differ from the network's by"):
            export(net, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["absent.onnx", "absent.pt2", "text.onnx", "text.pt2", "other.onnx"])
def test_files_that_hold_no_network_get_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no network")
    if name.startswith("other"):
        onnx = pytest.importorskip("onnx")
        picture = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        same = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [picture], [same])
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as refused:
        Colorizer(path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.slow
def test_an_exported_network_cannot_be_trained(onnx_file: Path) -> None:
    with pytest.raises(UserError, match="is an exported network, which can only colour"):
        load_network(onnx_file)

"""The registry: a network is made again from its name and its constructor's arguments, and from nothing else."""

import inspect
import json
import subprocess
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from fork_server import python
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor, nn

from pdnla import PDNLA, UserError, load_network, models
from pdnla.backbones import load_backbone
from pdnla.configuration import config_folder
from pdnla.fast import accelerate, for_inference
from pdnla.models import Description, build, describe, differences, register
from pdnla.network import Colorization, InformedPDNLA, SemanticPDNLA, SemanticWarp
from pdnla.weights import Weights, check_model, read_weights, save_weights


@register("four_orders")
class FourOrders(PDNLA):
    """A subclass with an argument that no shape shows."""

    def __init__(self, channel: int = 4, *, orders: int = 3, scales: Any = (1.0, 0.5), **others: Any) -> None:
        super().__init__(channel)
        self.orders, self.scales, self.others = orders, tuple(scales), others


@register("tint")
class Tint(nn.Module):
    """A model that has nothing of PDNLA."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.tint = nn.Parameter(torch.zeros(3, 1, 1))

    def encode_reference(self, reference: Tensor) -> Tensor:
        return reference.mean(dim=(2, 3), keepdim=True)

    def forward(self, target: Tensor, reference: Tensor) -> Colorization:
        out = target + self.strength * self.tint * self.encode_reference(reference)
        return Colorization(out, out)


def test_every_model_of_the_package_is_described_and_made_again(tmp_path: Path) -> None:
    backbone = load_backbone()
    expected: dict[nn.Module, dict[str, Any]] = {
        PDNLA(6): {"channel": 6, "extra": 0},
        PDNLA(channel=4, extra=3): {"channel": 4, "extra": 3},
        SemanticPDNLA(backbone, 4, side=64): {"backbone": "efficientnet_lite0", "channel": 4, "side": 64},
        InformedPDNLA(backbone, 4, side=64, share=0.5): {
            "backbone": "efficientnet_lite0",
            "channel": 4,
            "side": 64,
            "share": 0.5,
            "learned": True,
            "same_share": 0.0,
            "prior": True,
            "expects": False,
        },
        SemanticWarp(backbone, learned=True): {"backbone": "efficientnet_lite0", "learned": True},
        SemanticWarp(backbone): {"backbone": "efficientnet_lite0", "learned": False},
    }
    for network, arguments in expected.items():
        description = describe(network)
        assert description.arguments == arguments
        again = build(Description(**json.loads(json.dumps(description._asdict()))))
        assert type(again) is type(network)
        assert describe(again) == description
        save_weights(network, tmp_path / "w.safetensors", "a test")
        loaded = load_network(tmp_path / "w.safetensors")
        assert describe(loaded) == description
        for name, tensor in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)
    assert load_network(tmp_path / "w.safetensors").correspondence is not None


def test_a_subclass_keeps_its_own_arguments(tmp_path: Path) -> None:
    network = FourOrders(6, orders=4, scales=(2.0, 1.0), seed=7)
    assert describe(network).arguments == {"channel": 6, "orders": 4, "scales": [2.0, 1.0], "seed": 7}
    save_weights(network, tmp_path / "w.safetensors", "a test")
    loaded = load_network(tmp_path / "w.safetensors")
    assert isinstance(loaded, FourOrders)
    assert (loaded.orders, loaded.scales, loaded.others) == (4, (2.0, 1.0), {"seed": 7})


def test_a_file_from_before_an_argument_holds_the_network_that_it_described() -> None:
    @register("gained", former={"orders": 3})
    class Gained(PDNLA):
        def __init__(self, channel: int = 4, orders: int = 5) -> None:
            super().__init__(channel)
            self.orders = orders

    def made(**arguments: int) -> object:
        return build(Description("gained", arguments)).orders

    assert (Gained().orders, made(channel=4), made(orders=5), made(orders=4)) == (5, 3, 5, 4)
    informed = build(Description("pdnla_informed", {"channel": 4}))
    assert (informed.share, informed.same_share, informed.correspondence.metric) == (1, 1, None)
    assert differences(Description("gained", {"channel": 4}), Description("gained", {"channel": 4, "orders": 5})) == (
        "has orders 3 and the model 5; set model.orders=3"
    )


def test_a_models_configuration_and_its_class_have_the_same_defaults() -> None:
    folder = config_folder() / "model"
    for name in ("pdnla", "pdnla_semantic", "pdnla_informed"):
        config = OmegaConf.load(folder / f"{name}.yaml")
        parameters = inspect.signature(get_class(config._target_)).parameters
        chosen = {key: config[key] for key in config if key not in ("_target_", "backbone")}
        assert {key: parameters[key].default for key in chosen} == chosen


def test_a_copy_is_described_as_what_it_is_of() -> None:
    import copy

    assert describe(copy.deepcopy(PDNLA(6))) == describe(PDNLA(6))


def test_a_checkpoint_says_its_network(tmp_path: Path) -> None:
    network = FourOrders(4, orders=4)
    state = {f"ema.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "model": describe(network)._asdict()}, tmp_path / "w.ckpt")
    loaded = load_network(tmp_path / "w.ckpt")
    assert isinstance(loaded, FourOrders)
    assert loaded.orders == 4


def test_a_class_that_is_not_registered_is_not_saved_as_the_one_it_is_of(tmp_path: Path) -> None:
    class Five(PDNLA):
        pass

    with pytest.raises(UserError, match=r"Five is not a registered model; decorate the class with @pdnla\.models\.reg"):
        save_weights(Five(4), tmp_path / "w.safetensors", "a test")
    assert not list(tmp_path.iterdir())
    register("five")(Five)
    save_weights(Five(4), tmp_path / "w.safetensors", "a test")
    assert isinstance(load_network(tmp_path / "w.safetensors"), Five)


def test_what_a_file_cannot_hold_is_named(tmp_path: Path) -> None:
    network = FourOrders(4, scales=[nn.Identity()])
    with pytest.raises(UserError, match=r"four_orders was made with scales=list\(\.\.\.\), which a file cannot hold"):
        save_weights(network, tmp_path / "w.safetensors", "a test")
    assert not list(tmp_path.iterdir())


def test_what_its_class_would_not_make_again_is_not_saved(tmp_path: Path) -> None:
    network, before = PDNLA(4), torch.get_rng_state()
    accelerate(network)
    save_weights(network, tmp_path / "w.safetensors", "a test")
    assert torch.equal(torch.get_rng_state(), before)
    assert describe(load_network(tmp_path / "w.safetensors")) == describe(network)
    changed = PDNLA(4)
    changed.refiner.stem = nn.Conv2d(6, 4, 5)
    for other in (for_inference(network, torch.float32), changed):
        with pytest.raises(
            UserError, match=r"other\.safetensors: the network's tensors are not those of pdnla, channel 4"
        ):
            save_weights(other, tmp_path / "other.safetensors", "a test")
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_names_are_of_one_class_and_arguments_have_names() -> None:
    with pytest.raises(ValueError, match=r"the model pdnla is already pdnla\.network\.pdnla\.PDNLA"):
        register("pdnla")(Tint)

    class Nameless(nn.Module):
        def __init__(self, *sizes: int) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="Nameless: its constructor takes sizes without a name"):
        register("nameless")(Nameless)


@pytest.mark.slow
def test_what_is_not_registered_is_not_imported_and_the_sentence_says_what_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").write_text(
        "from pathlib import Path\n"
        "from pdnla import PDNLA\n"
        "from pdnla.models import register\n"
        "Path('imported').touch()\n"
        "@register('mine')\n"
        "class Mine(PDNLA):\n"
        "    def __init__(self, channel: int = 4, gain: float = 1.0):\n"
        "        super().__init__(channel)\n"
        "        self.gain = gain\n"
    )
    monkeypatch.chdir(tmp_path)
    save = "import my_models; from pdnla.weights import save_weights as save; save(my_models.Mine(gain=2), 'w.st', '')"
    subprocess.run([python(), "-c", save], check=True)
    Path("imported").unlink()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="the model mine is not known here; import my_models, which registers it"):
        load_network("w.st")
    assert not Path("imported").exists()

    def declared(*, group: str, name: str) -> list[EntryPoint]:
        return [EntryPoint(name, "my_models:Mine", group)] if (group, name) == ("pdnla.models", "mine") else []

    monkeypatch.setattr(models, "entry_points", declared)
    loaded = load_network("w.st")
    assert type(loaded).__name__ == "Mine"
    assert loaded.gain == 2


def test_arguments_that_a_model_does_not_take_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the model pdnla takes no depth here; upgrade it"):
        build(Description("pdnla", {"channel": 4, "depth": 3}))
    with pytest.raises(UserError, match="the model cannot be made as pdnla, channel 5: channel must be an even number"):
        build(Description("pdnla", {"channel": 5}))


def test_what_differs_is_said_in_one_sentence(tmp_path: Path) -> None:
    network = FourOrders(4, orders=4)
    other = describe(FourOrders(6, orders=3))
    assert differences(describe(network), describe(network)) == ""
    assert differences(other, describe(network)) == (
        "has channel 6 and the model 4, orders 3 and the model 4; set model.channel=6 model.orders=3"
    )
    assert "holds pdnla and the model is four_orders" in differences(describe(PDNLA(4)), describe(network))

    state = network.state_dict()
    fitting = Weights(state, describe(FourOrders(4, orders=3)), "a test")
    check_model("weights=w", fitting, network)  # a new training may begin from them,
    with pytest.raises(UserError, match=r"^ckpt_path=w: has orders 3 and the model 4; set model\.orders=3$"):
        check_model("ckpt_path=w", fitting, network, resuming=True)  # and this one not go on
    with pytest.raises(UserError, match="weights=w: has channel 6 and the model 4"):
        check_model("weights=w", Weights(PDNLA(6).state_dict(), other, "a test"), network)
    check_model("ckpt_path=w", Weights(state, Description("four_orders", {"channel": 4}), ""), network, resuming=True)
    with pytest.raises(UserError, match=r"weights=w: its tensors do not fit the network: 1 missing"):
        check_model(
            "weights=w",
            Weights({n: t for n, t in state.items() if n != "refiner.stem.weight"}, describe(network), ""),
            network,
        )


@pytest.mark.parametrize(
    ("name", "model", "arguments"),
    [
        (
            "default",
            "pdnla_informed",
            {
                "backbone": "efficientnet_lite0",
                "channel": 8,
                "side": 448,
                "share": 0.75,
                "learned": True,
                "same_share": 0.0,
                "prior": True,
                "expects": True,
            },
        ),
        ("pdnla_tiny", "pdnla", {"channel": 8, "extra": 0}),
        ("semantic_warp", "semantic_warp", {}),
    ],
)
def test_what_comes_with_the_package_is_of_registered_models(
    name: str, model: str, arguments: dict[str, object]
) -> None:
    actual = read_weights(name).description
    assert actual.model == model
    assert actual.arguments == arguments

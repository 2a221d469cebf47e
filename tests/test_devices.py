"""Compiling is bounded, and emulated precision is told."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdnla.devices import COMPILED_SIZES, choose_precision, compiled
from pdnla.network import Colorization
from pdnla.training.run import trainer_precision


class Sum(nn.Module):
    """Remembers the sizes it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[torch.Size] = []

    def encode_reference(self, reference: Tensor) -> tuple[Tensor, ...]:
        return (reference.mean(dim=(2, 3), keepdim=True), reference)

    def forward(self, target: Tensor, reference: Any) -> Colorization:
        self.called.append(target.shape)
        mean, _ = reference if isinstance(reference, tuple) else self.encode_reference(reference)
        return Colorization(target, target + mean)


def test_only_a_few_sizes_are_compiled_and_the_rest_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Any] = []
    networks = (Sum(), Sum())
    monkeypatch.setattr(torch, "compile", lambda network, **options: made.append(options) or networks[1])
    network = compiled(networks[0], torch.device("cpu"))
    assert made == [{"mode": "default", "dynamic": False}]
    reference = torch.ones(1, 3, 16, 32)
    for side in range(16, 16 * (COMPILED_SIZES + 4), 16):
        for given in (reference, reference):
            out = network(torch.zeros(1, 3, side, 16), given).out
            assert torch.equal(out, torch.ones(1, 3, side, 16))
    assert len(set(networks[1].called)) == COMPILED_SIZES
    assert len(networks[1].called) == 2 * COMPILED_SIZES
    assert len(set(networks[0].called)) == 3
    assert caplog.text.count("--compile: more than 8 sizes of pictures") == 1


def test_a_reference_of_another_size_is_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    network = compiled(Sum(), torch.device("cpu"))
    target = torch.zeros(1, 3, 16, 16)
    for side in (16, 32, 32):
        reference = torch.ones(1, 3, side, 16)
        network(target, reference)
        network(target, network.encode_reference(reference))
    assert len(network.sizes) == 4


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_automatic_where_it_is_native_and_a_warning_elsewhere(
    native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: native, raising=False)
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == (torch.bfloat16 if native else torch.float32)
    assert trainer_precision("auto", "cpu") == ("bf16-mixed" if native else "32-true")
    assert caplog.text == ""
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert trainer_precision("bf16-mixed", "cpu") == "bf16-mixed"
    assert caplog.text.count("bfloat16 is emulated on this cpu, slower than float32") == (0 if native else 2)

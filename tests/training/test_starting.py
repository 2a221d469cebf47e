"""Starting a training from weights."""

from pathlib import Path

import pytest
import torch

from pdnla.backbones import load_backbone
from pdnla.errors import UserError
from pdnla.network import InformedPDNLA
from pdnla.training.resuming import check_prior, start_from
from pdnla.weights import save_weights


def informed(**arguments: bool) -> InformedPDNLA:
    return InformedPDNLA(load_backbone(), **arguments).eval()


def test_a_network_that_expects_colours_starts_with_the_results_of_one_that_does_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, network = informed(), informed(expects=True)
    save_weights(first, tmp_path / "first.safetensors", "a test")
    start_from(str(tmp_path / "first.safetensors"), network)
    target, reference = (torch.rand(1, 3, 64, 64) * 2 - 1 for _ in range(2))
    target = target[:, :1].expand(-1, 3, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(network(target, reference).out, first(target, reference).out, atol=1e-4, rtol=0)
    before = network.target_encoder.stem.weight[:, -3:]
    assert before.abs().sum() == 0
    assert before.requires_grad


def test_a_network_cannot_expect_colours_of_an_untrained_prior() -> None:
    network = informed(expects=True)
    with pytest.raises(UserError, match="weights=default"):
        check_prior(network)
    start_from("default", network)
    check_prior(network)
    check_prior(informed())


def test_other_weights_do_not_start_a_network_that_expects_colours(tmp_path: Path) -> None:
    save_weights(informed(prior=False), tmp_path / "without.safetensors", "a test")
    for weights, difference in ((tmp_path / "without.safetensors", "prior"), ("pdnla_tiny", "pdnla_informed")):
        with pytest.raises(UserError, match=f"weights=.*: .*{difference}"):
            start_from(str(weights), informed(expects=True))
    save_weights(informed(expects=True), tmp_path / "with.safetensors", "a test")
    with pytest.raises(UserError, match=r"expects true and the model false; set model\.expects=true"):
        start_from(str(tmp_path / "with.safetensors"), informed())

"""The network gives the published network's numbers, stage by stage, as written and accelerated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pdnla.fast import accelerate
from pdnla.images import color
from pdnla.network import PDNLA
from pdnla.weights import load_network

TOLERANCE = 1e-4  # of each tensor's largest magnitude


@pytest.fixture(scope="module", params=["plain", "accelerated"])
def net(request: pytest.FixtureRequest, published_file: Path) -> PDNLA:
    net = load_network(published_file)
    return accelerate(net) if request.param == "accelerated" else net


@pytest.fixture(scope="module")
def results(net: PDNLA, golden_images: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Every stage's result under the golden file's name for it."""
    target, reference = golden_images
    actual: dict[str, Tensor] = {}
    fusion = net.decoder.fusions[0]
    hook = fusion.register_forward_hook(lambda _module, _inputs, out: actual.update(pdmf_level1=out))
    with torch.inference_mode():
        stages = net.stages(target, reference)
        codes = net.codes(stages)
        # The golden file has BNLF on its own, fed with the deepest features.
        actual["bnlf_level1"] = fusion.fusion(stages.target_features[3], stages.reference_features[3])
    hook.remove()
    for i in range(4):
        actual[f"target_feature{i + 1}"] = stages.target_features[i]
        actual[f"reference_feature{i + 1}"] = stages.reference_features[i]
        actual[f"decoder_out{i + 1}"] = stages.decoded[i]
    for side, code in zip(("target", "reference"), codes, strict=True):
        actual[f"{side}_orthogonality"], actual[f"{side}_gram"] = code
    actual["pap_of_target_level1"] = net.decoder.pool(stages.target_features[0]).transpose(1, 2)
    actual["mid"], actual["out"] = stages.mid, stages.out
    return actual


STAGES = [
    *(f"{kind}{i}" for kind in ("target_feature", "reference_feature", "decoder_out") for i in range(1, 5)),
    *(f"{side}_{head}" for side in ("target", "reference") for head in ("orthogonality", "gram")),
    *("pap_of_target_level1", "bnlf_level1", "pdmf_level1", "mid", "out"),
]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_matches_the_published_network(stage: str, results: dict[str, Tensor], golden: dict[str, Any]) -> None:
    expected = torch.from_numpy(golden[stage]).flatten()
    actual = results[stage].flatten()
    step = max(1, -(-len(actual) // 4096))
    step += step > 1 and step % 2 == 0
    actual = actual if len(actual) == len(expected) else actual[::step]
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE


def test_luminance_replaced_result_matches_where_the_published_one_is_a_colour(
    results: dict[str, Tensor], golden: dict[str, Any], golden_images: tuple[Tensor, Tensor]
) -> None:
    # The published conversion gives NaN for colours far outside sRGB, and values above 1 elsewhere.
    expected = torch.from_numpy(golden["out_luminance_replaced"])
    actual = color.replace_luminance(golden_images[0], results["out"])
    a_colour = expected.isfinite()
    assert a_colour.float().mean() > 0.8
    assert (actual - expected.clamp(-1, 1))[a_colour].abs().max() < TOLERANCE
    assert actual.isfinite().all()


def test_golden_file_covers_every_stage(golden: dict[str, Any]) -> None:
    assert set(golden) == {*STAGES, "out_luminance_replaced", "target_uint8", "reference_uint8"}
    assert all(np.isfinite(golden[stage]).all() for stage in STAGES)

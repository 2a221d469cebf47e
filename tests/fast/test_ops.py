"""The convolutions are operators that torch's own tools can see."""

import pytest
import torch

from pdnla.fast import native, ops

CL = torch.channels_last


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if native.load_library() is None:
        pytest.skip("no C++ compiler")
    native.load_libraries()  # a graph has only loaded ones, and another test may have unloaded them


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=CL)


@pytest.mark.parametrize("stride", [1, 2])
def test_shapes_types_and_gradients_are_what_torch_asks_of_an_operator(stride: int) -> None:
    trained = stride == 1
    x, weight, bias = maps(2, 16, 12, 10).requires_grad_(trained), maps(32, 16, 3, 3, seed=1), torch.zeros(32)
    padding = [1, 1, 0, 2]
    rows, columns = (12 + 2 - 3) // stride + 1, (10 + 2 - 3) // stride + 1
    add = maps(2, 32, rows, columns, seed=2)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.pdnla.conv3x3.default,
        (x, weight.requires_grad_(trained), bias, add, stride, padding, False, 1.0, 0.5),
        test_utils=checks,
    )
    gradient = maps(2, 32, 12, 10, seed=3)
    torch.library.opcheck(
        torch.ops.pdnla.conv3x3_weight_gradient.default, (x.detach(), gradient, [1, 1, 1, 1], True), test_utils=checks
    )


def test_a_graph_has_the_operator_and_without_it_torchs_where_that_is_asked() -> None:
    x, weight = maps(1, 16, 64, 64), maps(16, 16, 3, 3, seed=1)

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ops.conv3x3(x, weight)

    def operators() -> str:
        with torch.no_grad():
            return str(torch.export.export(Layer(), (x,), strict=False).graph)

    assert "pdnla.conv3x3" in operators()
    with ops.torch_only():
        assert "pdnla.conv3x3" not in operators()

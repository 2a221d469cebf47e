"""Averaging gradients over several devices, called by the training loop itself.

Lightning's DDP wraps the whole module, critics included, and expects each backward pass to reach every parameter. A
step with critics has several passes, each for some of the parameters, and no flag of the wrapper distinguishes a pass
that leaves out a critic from one that omits a layer by mistake. So this module uses no wrapper: after its backward
pass, each optimiser's gradients are averaged over the devices, and a parameter without a gradient is an error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.distributed
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from pdnla.training.distributed import several_devices

_BUCKET = 1 << 23  # elements exchanged at a time


class AveragedGradients(DDPStrategy):
    """Lightning's DDP strategy without the wrapper; see :func:`average_gradients`."""

    strategy_name = "averaged_gradients"

    def configure_ddp(self) -> None:
        """Copy the first device's weights to all devices."""
        assert self.model is not None
        for tensor in self.model.state_dict().values():
            if isinstance(tensor, Tensor):
                torch.distributed.broadcast(tensor, 0)


@torch.no_grad()
def mean_over_devices(values: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
    """Return the mean of each value over the devices in one exchange; all devices have the same names."""
    numbers = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}
    if not several_devices():
        return numbers
    device = next((number.device for number in numbers.values() if number.device.type != "cpu"), None)
    together = torch.stack([number.to(device) for number in numbers.values()])
    torch.distributed.all_reduce(together)
    return dict(zip(numbers, together / torch.distributed.get_world_size(), strict=True))


@torch.no_grad()
def average_gradients(parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
    """Replace each gradient by its mean over the devices.

    Args:
        parameters: the parameters of a backward pass, with their names, in the same order on every device.

    Raises:
        RuntimeError: a parameter has no gradient: the loss does not depend on it, so it must not require one.
    """
    idle = [name for name, parameter in parameters if parameter.grad is None]
    if idle:
        raise RuntimeError(f"{len(idle)} parameters take no part in the loss, such as {idle[0]}")
    if not several_devices():
        return
    gradients = [parameter.grad for _, parameter in parameters if parameter.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= _BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket

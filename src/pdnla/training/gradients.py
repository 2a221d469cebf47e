"""Several devices: the mean of their gradients, asked for by the training loop itself.

Lightning's DDP puts the whole module, critics included, into one wrapper that expects each backward pass to reach every
parameter. A step with critics has several passes, each for some of them, and no flag of the wrapper tells a pass that
leaves out a critic from one that forgets a layer. So there is no wrapper here: after its backward pass, each
optimiser's gradients are averaged over the devices, and a parameter without one is an error that names it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.distributed
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from pdnla.training.distributed import several_devices

_BUCKET = 1 << 23  # numbers exchanged at a time


class AveragedGradients(DDPStrategy):
    """Lightning's processes and devices of DDP, without its wrapper; see :func:`average_gradients`."""

    strategy_name = "averaged_gradients"

    def configure_ddp(self) -> None:
        """Start all devices from the first one's weights."""
        assert self.model is not None
        for tensor in self.model.state_dict().values():
            if isinstance(tensor, Tensor):
                torch.distributed.broadcast(tensor, 0)


@torch.no_grad()
def mean_over_devices(values: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
    """Return the mean of each number over the devices, exchanged all at once; the names are the same on all."""
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
        parameters: those that a backward pass has just reached, with their names, in the same order on every device.

    Raises:
        RuntimeError: one of them has no gradient: it takes no part in the loss, and should not be learning.
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

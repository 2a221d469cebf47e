"""Measure the time of a training step by part and by loss term.

    python scripts/step_times.py                            # loss=hybrid with every term, pdnla_tiny, 128×128, batch 12
    python scripts/step_times.py model=pdnla data.size=256  # overrides as pdnla-train takes them

Each part is run on its own, in turns, after one run that is not counted; medians are shown. A term's time is that of
its forward pass and of its gradient to the results; features that terms share are counted where they are made first.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable

import hydra
import torch
from torch import Tensor

from benchmark import pictures
from pdnla.backbones import load_backbone
from pdnla.configuration import config_folder
from pdnla.devices import choose_device, choose_precision
from pdnla.losses import CriticTerm, HeadCodes, HybridLoss, LossTerm, Supervision
from pdnla.memory import keep_freed_memory
from pdnla.training.ema import averaged_copy, update_average

ROUNDS = 5
DEFAULTS = ["model=pdnla_tiny", "loss=hybrid", "data.unpaired_fraction=0.5", "data.size=128", "data.batch_size=12"]
DEFAULTS += [f"loss.weights.{term}=0.05" for term in ("adversarial", "cooccurrence", "contextual", "content", "heads")]


def measure(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each job."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(ROUNDS + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    keep_freed_memory()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose("train", [*DEFAULTS, *sys.argv[1:]])
    device = choose_device("auto")
    half = choose_precision("auto", device) == torch.bfloat16
    torch.manual_seed(0)
    net = hydra.utils.instantiate(config.model).to(device)
    average = averaged_copy(net)
    loss: HybridLoss = hydra.utils.instantiate(config.loss).to(device)
    backbone = load_backbone(config.backbone).to(device) if loss.needs("backbone") else None
    optimizer = hydra.utils.instantiate(config.optim)(list(net.parameters()))
    count, size = config.data.batch_size, config.data.size
    unpaired = round(config.data.unpaired_fraction * count)
    target, reference = (x.to(device) for x in pictures(count, size))
    truth = reference.flip(0)
    out = (truth + 0.1 * torch.randn_like(truth)).requires_grad_()
    mid = (truth + 0.1 * torch.randn_like(truth)).requires_grad_()

    def precision() -> contextlib.AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def supervision(term: LossTerm) -> Supervision:
        codes = None
        if "codes" in term.needs:
            features = [net.reference_encoder.codes(net.reference_encoder(x)[-1]) for x in (reference, out)]
            codes = HeadCodes(net.target_encoder.codes(net.target_encoder(target)[-1]), *features)
        return Supervision(target, reference, truth, mid, out, unpaired=unpaired, backbone=backbone, codes=codes)

    def forward() -> tuple[Tensor, Tensor]:
        with precision():
            return tuple(x.float() for x in net(target, reference))

    def both() -> None:
        sum(x.square().mean() for x in forward()).backward()  # type: ignore[union-attr]

    def judging(term: LossTerm) -> Callable[[], None]:
        def job() -> None:
            with precision():
                value = term(term.select(supervision(term)))
            value.backward()
            out.grad = mid.grad = None

        return job

    def learning(term: CriticTerm) -> Callable[[], None]:
        def job() -> None:
            with precision():
                value, _ = term.critic_loss(term.select(supervision(term).detached()), step=1)
            value.backward()

        return job

    def update() -> None:
        optimizer.step()
        update_average(average, net, 0.999)

    jobs: dict[str, Callable[[], object]] = {"network, forward and backward": both, "optimiser and average": update}
    both()
    for name, term in loss.active_terms.items():
        jobs[f"term {name}"] = judging(term)
        if isinstance(term, CriticTerm):
            jobs[f"critic of {name}"] = learning(term)
    seconds = measure(jobs)
    total = sum(seconds.values())
    print(f"{config.model.channel} channels, {size}×{size}, batch {count}, {unpaired} unpaired, {device}")
    print("\n| part | seconds | share |\n| --- | --- | --- |")
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {name} | {value:.3f} | {100 * value / total:.0f}% |")
    print(f"| together | {total:.3f} | 100% |")


if __name__ == "__main__":
    main()

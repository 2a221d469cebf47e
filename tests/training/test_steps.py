"""One step of training: parts of a batch, critics in turn, steps that cannot be taken."""

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pdnla import PDNLA, UserError
from pdnla.data.modules import Batch, BuiltinData
from pdnla.data.pseudo_pairs import Pairs, PseudoPairs
from pdnla.losses import (
    AdversarialLoss,
    ChromaLoss,
    CooccurrenceLoss,
    HeadsLoss,
    HistogramLoss,
    HybridLoss,
    LossTerm,
    PerceptualLoss,
    PixelLoss,
    Supervision,
)
from pdnla.losses.critics import ImageCritic, PatchCritic
from pdnla.training.module import ColorizationModule, in_parts


def make(terms: dict[str, LossTerm], steps: int = 10, **options: Any) -> ColorizationModule:
    torch.manual_seed(0)
    return ColorizationModule(
        PDNLA(4),
        HybridLoss(terms, dict.fromkeys(terms, 1.0)),
        lambda groups: torch.optim.Adam(groups, 1e-3),
        steps=steps,
        critic_optimizer=lambda groups: torch.optim.Adam(groups, 1e-3),
        warmup=1,
        **options,
    )


def fit(
    module: ColorizationModule, steps: int, precision: Any = "32-true", batch_size: int = 4, **options: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    given = {"unpaired_fraction": 0.0, "pairing": "random", **options}
    data = BuiltinData(
        batch_size=batch_size,
        size=32,
        pairs=PseudoPairs(),
        seed=0,
        workers=0,
        validation_count=2,
        repeats=8,
        **given,
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_batch_in_parts_gives_the_step_of_the_whole(parts: int) -> None:
    def trained(accumulate: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        terms = {"pixel": PixelLoss(), "chroma": ChromaLoss(), "histogram": HistogramLoss()}
        module = make(terms, accumulate=accumulate)
        trainer = fit(module, 2, "64-true", batch_size=5, unpaired_fraction=0.4)
        return dict(module.network.state_dict()), trainer.logged_metrics

    whole, logged = trained(1)
    actual, logged_in_parts = trained(parts)
    assert all((whole[name] - actual[name]).abs().max() < 1e-8 for name in whole)
    for name in ("total", "pixel", "chroma", "histogram"):
        assert logged_in_parts[f"train/loss/{name}"] == pytest.approx(float(logged[f"train/loss/{name}"]), rel=1e-6)


def test_parts_share_out_unpaired_and_paired_rows_and_draw_their_own_patches() -> None:
    rows = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 3, 2, 2)
    parts = in_parts(Batch(Pairs(rows, rows, rows), 3, 10, 0, 0), 2)
    assert [part.pairs.target[:, 0, 0, 0].tolist() for part in parts] == [[0, 2, 3, 5], [1, 4, 6]]
    assert [part.unpaired for part in parts] == [2, 1]
    assert parts[0].seed != parts[1].seed
    assert len(in_parts(Batch(Pairs(rows, rows, rows), 3, 10, 0, 0), 20)) == 4


@pytest.mark.slow
def test_every_learner_moves_and_only_the_networks_steps_count() -> None:
    terms = {
        "pixel": PixelLoss(),
        "adversarial": AdversarialLoss(ImageCritic(4, 3), penalty_every=2),
        "cooccurrence": CooccurrenceLoss(PatchCritic(4, 1), size=8),
        "heads": HeadsLoss(),
        "perceptual": PerceptualLoss(),
    }
    module = make(terms)
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = fit(module, 3, unpaired_fraction=0.5)
    assert trainer.global_step == 3
    still = [name for name, value in module.named_parameters() if torch.equal(value, before[name])]
    # A network this narrow has gates of one unit, which can be dead.
    assert [name for name in still if "squeeze" not in name and "excite" not in name] == []
    assert not any("backbone" in name or "_frozen" in name for name in module.state_dict())


def test_heads_that_no_term_asks_for_do_not_learn() -> None:
    module = make({"pixel": PixelLoss()})
    before = module.network.target_encoder.head.weight.clone()
    fit(module, 1)
    assert torch.equal(module.network.target_encoder.head.weight, before)
    assert not module.network.target_encoder.head.weight.requires_grad


@pytest.mark.slow
def test_bfloat16_trains_with_all_terms() -> None:
    terms = {
        "pixel": PixelLoss(),
        "adversarial": AdversarialLoss(ImageCritic(4, 3), penalty_every=2),
        "heads": HeadsLoss(),
        "perceptual": PerceptualLoss(),
        "histogram": HistogramLoss(),
    }
    module = make(terms)
    logged = fit(module, 3, "bf16-mixed", unpaired_fraction=0.5).logged_metrics
    assert logged["train/skipped_steps"] == 0
    assert all(torch.isfinite(value) for value in logged.values())
    assert all(p.dtype == torch.float32 for p in module.parameters())


class Spoiled(LossTerm):
    """A term that is not finite at some calls."""

    def __init__(self, spoiled: Callable[[int], bool]) -> None:
        super().__init__()
        self.spoiled, self.calls = spoiled, 0

    def forward(self, batch: Supervision) -> Tensor:
        self.calls += 1
        return batch.out.mean() * (float("nan") if self.spoiled(self.calls) else 1.0)


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    module = make({"pixel": PixelLoss(), "bad": Spoiled(lambda call: call in (2, 4))})
    trainer = fit(module, 4)
    assert trainer.global_step == 4
    assert module.loss.terms["bad"].calls == 6
    assert module.counts["skipped"] == 2
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert trainer.logged_metrics["train/skipped_steps"] == 2


@pytest.mark.slow
def test_many_steps_in_a_row_that_are_not_finite_end_the_run_and_name_the_term() -> None:
    module = make({"pixel": PixelLoss(), "bad": Spoiled(lambda call: call > 2)}, max_skipped=3)
    with pytest.raises(UserError, match=r"3 steps in a row were not finite \(bad\); lower optim\.lr"):
        fit(module, 50)
    assert module.global_step == 2


def test_unpaired_pairs_that_no_term_judges_are_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match="choose loss=hybrid for unpaired ones"):
        fit(make({"pixel": PixelLoss()}), 1, unpaired_fraction=1.0)


def test_half_a_batch_that_no_term_judges_is_refused_too() -> None:
    with pytest.raises(UserError, match="choose loss=hybrid for unpaired ones"):
        fit(make({"pixel": PixelLoss()}), 1, unpaired_fraction=0.5)


def test_crops_that_a_critic_cannot_halve_are_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"loss\.terms\.adversarial: its critic halves 32 pixels.*multiple of 64"):
        fit(make({"adversarial": AdversarialLoss(ImageCritic(4, 6))}), 1)
    with pytest.raises(UserError, match=r"loss\.terms\.cooccurrence: its critic halves 12 pixels.*multiple of 8"):
        fit(make({"cooccurrence": CooccurrenceLoss(PatchCritic(4, 3), size=12)}), 1, unpaired_fraction=1.0)


def test_learning_critics_without_an_optimiser_are_refused() -> None:
    loss = HybridLoss({"adversarial": AdversarialLoss(ImageCritic(4, 2))}, {"adversarial": 1.0})
    with pytest.raises(ValueError, match="adversarial learn and there is no critic_optimizer"):
        ColorizationModule(PDNLA(4), loss, lambda groups: torch.optim.Adam(groups, 1e-3), steps=1)

"""Train on one or two CPU processes and leave each one's weights: run by test_distributed.py, in its own interpreter.

python two_processes.py FOLDER PROCESSES STEPS LOSS
"""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from pdnla import PDNLA
from pdnla.data.modules import Batch, BuiltinData
from pdnla.data.pseudo_pairs import PseudoPairs
from pdnla.losses import AdversarialLoss, ChromaLoss, CooccurrenceLoss, HeadsLoss, HybridLoss, LossTerm, PixelLoss
from pdnla.losses.critics import ImageCritic, PatchCritic
from pdnla.training.gradients import AveragedGradients
from pdnla.training.module import ColorizationModule

GLOBAL_BATCH = 4


class Watch(pl.Callback):
    """Writes what this process saw and ended with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        self.seen.extend(batch.pairs.truth.double().mean(dim=(1, 2, 3)).tolist())

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        state = {name: value for name, value in module.state_dict().items() if not name.startswith("validation.")}
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
        content = {"state": state, "seen": self.seen, "logged": logged}
        torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


def make(kind: str, steps: int) -> ColorizationModule:
    torch.manual_seed(0)
    terms: dict[str, LossTerm] = {"pixel": PixelLoss(), "chroma": ChromaLoss()}
    if kind == "critics":
        terms["adversarial"] = AdversarialLoss(ImageCritic(4, 3), penalty_every=2)
        terms["cooccurrence"] = CooccurrenceLoss(PatchCritic(4, 1), size=8, penalty_every=3)
        terms["heads"] = HeadsLoss()
    return ColorizationModule(
        PDNLA(4),
        HybridLoss(terms, dict.fromkeys(terms, 0.5)),
        lambda groups: torch.optim.Adam(groups, 1e-3, betas=(0.5, 0.99)),
        steps=steps,
        critic_optimizer=lambda groups: torch.optim.Adam(groups, 1e-3, betas=(0.0, 0.99)),
        warmup=2,
    )


def main() -> None:
    folder, processes, steps, kind = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=AveragedGradients(),
        precision="64-true",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=False,
        callbacks=[Watch(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = BuiltinData(
        batch_size=GLOBAL_BATCH // processes,
        size=32,
        pairs=PseudoPairs(),
        seed=0,
        workers=0,
        validation_count=2,
        repeats=8,
        unpaired_fraction=0.5 if kind == "critics" else 0.0,
        pairing="random",
    )
    trainer.fit(make(kind, steps), datamodule=data)


if __name__ == "__main__":
    main()

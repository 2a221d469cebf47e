"""Train as one of one or two CPU processes and leave what this one saw: run by test_distributed.py.

python two_processes.py FOLDER PROCESSES PAIRS     with LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment
"""

import os
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
STEPS = {"paired": 12, "critics": 6}


def state_of(module: pl.LightningModule) -> dict[str, torch.Tensor]:
    state = module.state_dict().items()
    return {name: value.clone() for name, value in state if not name.startswith("validation.")}


class Watch(pl.Callback):
    """Writes what this process began with, saw and ended with."""

    def __init__(self, file: Path) -> None:
        self.file, self.seen, self.start = file, [], {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.start = state_of(module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        self.seen.extend(batch.pairs.truth.double().mean(dim=(1, 2, 3)).tolist())

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
        content = {"start": self.start, "state": state_of(module), "seen": self.seen, "logged": logged}
        torch.save(content, self.file)


def make(kind: str) -> ColorizationModule:
    torch.manual_seed(0)
    terms: dict[str, LossTerm] = {"pixel": PixelLoss(weight=0.5), "chroma": ChromaLoss(weight=0.5)}
    if kind == "critics":
        terms["adversarial"] = AdversarialLoss(ImageCritic(4, 3), penalty_every=2, weight=0.5)
        terms["cooccurrence"] = CooccurrenceLoss(PatchCritic(4, 1), size=8, penalty_every=3, weight=0.5)
        terms["heads"] = HeadsLoss(weight=0.5)
    return ColorizationModule(
        PDNLA(4),
        HybridLoss(terms),
        lambda groups: torch.optim.Adam(groups, 1e-3, betas=(0.5, 0.99)),
        steps=STEPS[kind],
        critic_optimizer=lambda groups: torch.optim.Adam(groups, 1e-3, betas=(0.0, 0.99)),
        warmup=2,
    )


def train(folder: Path, processes: int, pairs: str, kind: str) -> None:
    pl.seed_everything(0, verbose=False)
    rank = os.environ["LOCAL_RANK"]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=AveragedGradients(),
        precision="64-true",
        max_steps=STEPS[kind],
        max_epochs=-1,
        val_check_interval=STEPS[kind],
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=STEPS[kind],
        logger=False,
        callbacks=[Watch(folder / f"{kind}_{processes}_{rank}.pt")],
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
        validation_count=1,  # one of two processes has none
        repeats=8,
        unpaired_fraction=0.5 if kind == "critics" else 0.0,
        pairing="random",
        validation_pairs=pairs,
    )
    trainer.fit(make(kind), datamodule=data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, processes, pairs = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for kind in STEPS:
        train(folder, processes, pairs, kind)

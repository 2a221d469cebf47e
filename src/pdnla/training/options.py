"""The options of ``pdnla-train``: what each must be, in one table."""

import re

from pdnla.evaluation.measures import measured
from pdnla.options import DURATION, FLAG, NULL, TEXT, Rule, above, list_of, number, whole, word

_PATH = TEXT
_PART = number(0, 1)

_DEVICES = (
    whole(1)
    | word("auto", -1)
    | list_of(whole(0))
    | Rule("their numbers", lambda value: isinstance(value, str) and re.fullmatch(r"\d+(,\d+)*", value) is not None)
)._replace(must="a whole number of at least 1, auto or -1 for all, or a list of their numbers")

_PRECISION = word("auto", "32-true", "bf16-mixed", "64-true", "bf16-true", "32", "bf16", "64", 32, 64)._replace(
    must=(
        "auto, 32-true, bf16-mixed, bf16-true or 64-true; 16-bit floats would need their gradients scaled, which this"
        " training does not do"
    )
)

_VALIDATION = (
    whole(1) | Rule("a part of an epoch", lambda value: isinstance(value, float) and 0 < value <= 1)
)._replace(must="a whole number of steps of at least 1, or a part of an epoch above 0 and at most 1.0")

OPTIONS: dict[str, Rule] = {
    "name": TEXT | whole(),
    "seed": whole(0, 2**32 - 1),
    "ckpt_path": _PATH | NULL,
    "weights": _PATH | NULL,
    "backbone": TEXT,
    # conf/train.yaml, schedule
    "schedule.warmup": whole(0),
    "schedule.equalised_lr": above(0),
    "schedule.final_lr": _PART,
    "schedule.clip": above(0),
    "schedule.ema_decay": _PART,
    "schedule.accumulate": whole(1),
    "schedule.max_skipped": whole(1),
    "schedule.compile": FLAG,
    "schedule.accelerate": FLAG,
    # conf/model
    "model.channel": whole(1),
    "model.side": whole(1),
    "model.backbone.name": TEXT,
    # conf/optim
    **{
        f"{optimizer}.{option}": rule
        for optimizer in ("optim", "critic_optim")
        for option, rule in (("lr", above(0)), ("betas", list_of(_PART, 2)))
    },
    # conf/data
    "data.root": _PATH | NULL,  # data=pairs has none
    "data.validation_root": _PATH | NULL,
    "data.pairs_file": _PATH,
    "data.validation_pairs": _PATH | NULL,
    "data.backbone": TEXT,
    "data.seed": whole(0, 2**32 - 1),
    "data.batch_size": whole(1),
    "data.size": whole(1),
    "data.zoom": number(1),
    "data.workers": whole(0),
    "data.validation_count": whole(1),
    "data.repeats": whole(1),
    "data.unpaired_fraction": _PART,
    "data.unpaired_ramp": whole(0),
    "data.pairing": word("class", "nearest", "random"),
    "data.overfit": FLAG,
    "data.shuffle_shards": whole(0),
    "data.recount": whole(1),
    "data.recolour": _PART,
    "data.turn": _PART,
    "data.mistakes": _PART,
    "data.pairs.warp": number(0),
    "data.pairs.noise": _PART,
    "data.pairs.mirror": _PART,
    "data.pairs.recolour": _PART,
    "data.pairs.recolour_strength": number(0),
    # conf/loss
    "loss.weights.*": number(0),
    "loss.terms.*.weight": number(0),
    "loss.terms.*.mid": number(0),
    "loss.terms.*.edges": above(0) | NULL,
    "loss.terms.*.penalty": number(0),
    "loss.terms.*.penalty_every": whole(1),
    "loss.terms.*.patches": whole(1),
    "loss.terms.*.reference_patches": whole(1),
    "loss.terms.*.size": whole(1),
    "loss.terms.*.levels": list_of(number(0)),
    "loss.terms.*.bandwidth": above(0),
    "loss.terms.*.bins": whole(1),
    "loss.terms.*.side": whole(1),
    "loss.terms.*.orthogonality": number(0),
    "loss.terms.*.critic.width": whole(1),
    "loss.terms.*.critic.blocks": whole(1),
    # conf/trainer
    "trainer.accelerator": word("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.devices": _DEVICES,
    "trainer.num_nodes": whole(1),
    "trainer.strategy": TEXT,
    "trainer.precision": _PRECISION,
    "trainer.max_steps": whole(1) | word(-1),
    "trainer.max_epochs": whole(1) | word(-1),
    "trainer.max_time": DURATION | NULL,
    "trainer.val_check_interval": _VALIDATION,
    "trainer.check_val_every_n_epoch": whole(1) | NULL,
    "trainer.log_every_n_steps": whole(1),
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.use_distributed_sampler": word("false")._replace(holds=lambda value: value is False),
    "trainer.enable_progress_bar": FLAG,
    "trainer.enable_model_summary": FLAG,
    "trainer.default_root_dir": _PATH,
    # conf/callbacks and conf/hparams_search
    "callbacks.*.dirpath": _PATH,
    "callbacks.*.folder": _PATH,
    "callbacks.*.filename": TEXT,
    "callbacks.*.measure": word(*(measure.name for measure in measured("validation", "truth"))),
    "callbacks.*.auto_insert_metric_name": FLAG,
    "callbacks.*.enable_version_counter": FLAG,
    "callbacks.*.monitor": TEXT,
    "callbacks.*.mode": word("min", "max"),
    "callbacks.*.save_top_k": whole(-1),
    "callbacks.*.every_n_train_steps": whole(1),
    "callbacks.*.rows": whole(1),
    "callbacks.*.warmup_validations": whole(0),
    "callbacks.*.least_runs": whole(1),
    # conf/logger
    "logger.*.save_dir": _PATH,
    "logger.*.name": Rule("text", lambda value: isinstance(value, str | int)),
    "logger.*.version": Rule("text", lambda value: isinstance(value, str | int)),
    "logger.*.project": TEXT,
    "logger.*.offline": FLAG,
    "logger.offline": Rule("left out; the option is logger.wandb.offline", lambda value: False),  # of older records
}

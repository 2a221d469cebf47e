"""The rules for the options of ``pdnla-train``, in one table."""

import re

from pdnla.evaluation.measures import measured
from pdnla.options import BOOLEAN, DURATION, NULL, TEXT, Rule, above, integer, list_of, multiple_of, number, one_of

_PATH = TEXT
_PART = number(0, 1)

_DEVICES = (
    integer(1)
    | one_of("auto", -1)
    | list_of(integer(0))
    | Rule("their numbers", lambda value: isinstance(value, str) and re.fullmatch(r"\d+(,\d+)*", value) is not None)
)._replace(requirement="a whole number of at least 1, auto or -1 for all, or a list of their numbers")

_PRECISION = one_of("auto", "32-true", "bf16-mixed", "64-true", "bf16-true", "32", "bf16", "64", 32, 64)._replace(
    requirement=(
        "auto, 32-true, bf16-mixed, bf16-true or 64-true; float16 would need gradient scaling, which this training does"
        " not have"
    )
)

_VALIDATION = (
    integer(1) | Rule("a part of an epoch", lambda value: isinstance(value, float) and 0 < value <= 1)
)._replace(requirement="a whole number of steps of at least 1, or a part of an epoch above 0 and at most 1.0")
_SHARE = Rule("a number above 0 and at most 1", lambda value: above(0).holds(value) and value <= 1)

OPTIONS: dict[str, Rule] = {
    "name": TEXT | integer(),
    "seed": integer(0, 2**32 - 1),
    "ckpt_path": _PATH | NULL,
    "weights": _PATH | NULL,
    "backbone": TEXT,
    # conf/train.yaml, schedule
    "schedule.warmup": integer(0),
    "schedule.equalised_lr": above(0),
    "schedule.final_lr": _PART,
    "schedule.clip": above(0),
    "schedule.ema_decay": _PART,
    "schedule.accumulate": integer(1),
    "schedule.max_skipped": integer(1),
    "schedule.compile": BOOLEAN,
    "schedule.accelerate": BOOLEAN,
    # conf/model
    "model.channel": integer(1),
    "model.side": integer(1),
    "model.share": _SHARE,
    "model.same_share": _PART | NULL,
    "model.learned": BOOLEAN,
    "model.prior": BOOLEAN,
    "model.expects": BOOLEAN,
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
    "data.names": list_of(TEXT),
    "data.validation_pairs": _PATH | NULL,
    "data.seed": integer(0, 2**32 - 1),
    "data.batch_size": integer(1),
    "data.size": multiple_of(16),
    "data.zoom": number(1),
    "data.workers": integer(0),
    "data.validation_count": integer(1),
    "data.repeats": integer(1),
    "data.unpaired_fraction": _PART,
    "data.unpaired_ramp": integer(0),
    "data.pairing": one_of("class", "nearest", "random"),
    "data.overfit": BOOLEAN,
    "data.shuffle_shards": integer(0),
    "data.recount": integer(1),
    "data.priors": list_of(TEXT),
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
    "loss.terms.*.penalty_every": integer(1),
    "loss.terms.*.patches": integer(1),
    "loss.terms.*.reference_patches": integer(1),
    "loss.terms.*.size": integer(1),
    "loss.terms.*.levels": list_of(number(0)),
    "loss.terms.*.bandwidth": above(0),
    "loss.terms.*.bins": integer(1),
    "loss.terms.*.side": integer(1),
    "loss.terms.*.orthogonality": number(0),
    "loss.terms.*.critic.width": integer(1),
    "loss.terms.*.critic.blocks": integer(1),
    # conf/trainer
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.devices": _DEVICES,
    "trainer.num_nodes": integer(1),
    "trainer.strategy": TEXT,
    "trainer.precision": _PRECISION,
    "trainer.max_steps": integer(1) | one_of(-1),
    "trainer.max_epochs": integer(1) | one_of(-1),
    "trainer.max_time": DURATION | NULL,
    "trainer.val_check_interval": _VALIDATION,
    "trainer.check_val_every_n_epoch": integer(1) | NULL,
    "trainer.log_every_n_steps": integer(1),
    "trainer.num_sanity_val_steps": integer(-1),
    "trainer.use_distributed_sampler": one_of("false")._replace(holds=lambda value: value is False),
    "trainer.enable_progress_bar": BOOLEAN,
    "trainer.enable_model_summary": BOOLEAN,
    "trainer.default_root_dir": _PATH,
    # conf/callbacks and conf/hparams_search
    "callbacks.*.dirpath": _PATH,
    "callbacks.*.folder": _PATH,
    "callbacks.*.filename": TEXT,
    "callbacks.*.measure": one_of(*(measure.name for measure in measured("validation", "truth"))),
    "callbacks.*.auto_insert_metric_name": BOOLEAN,
    "callbacks.*.enable_version_counter": BOOLEAN,
    "callbacks.*.monitor": TEXT,
    "callbacks.*.mode": one_of("min", "max"),
    "callbacks.*.save_top_k": integer(-1),
    "callbacks.*.every_n_train_steps": integer(1),
    "callbacks.*.rows": integer(1),
    "callbacks.*.warmup_validations": integer(0),
    "callbacks.*.least_runs": integer(1),
    # conf/logger
    "logger.*.save_dir": _PATH,
    "logger.*.name": Rule("text", lambda value: isinstance(value, str | int)),
    "logger.*.version": Rule("text", lambda value: isinstance(value, str | int)),
    "logger.*.project": TEXT,
    "logger.*.offline": BOOLEAN,
    "logger.offline": Rule("left out; the option is logger.wandb.offline", lambda value: False),  # in older records
}

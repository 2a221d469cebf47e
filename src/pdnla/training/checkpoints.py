"""The checkpoint of a run's best validation."""

from pytorch_lightning.callbacks import ModelCheckpoint

from pdnla.evaluation.measures import MEASURES, OBJECTIVE, logged


def best_checkpoint(dirpath: str, filename: str = "best_{step:07d}", measure: str = OBJECTIVE) -> ModelCheckpoint:
    """Return the callback that keeps the checkpoint with the best validation value of a measure.

    Args:
        dirpath: folder of the checkpoint.
        filename: its name, which contains the step.
        measure: name of a validation measure.
    """
    return ModelCheckpoint(
        dirpath,
        filename,
        monitor=logged(measure),
        mode="max" if MEASURES[measure].better == "up" else "min",
        save_top_k=1,
        auto_insert_metric_name=False,
    )

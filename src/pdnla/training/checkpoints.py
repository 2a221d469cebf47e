"""Which checkpoints a run keeps."""

from pytorch_lightning.callbacks import ModelCheckpoint

from pdnla.evaluation.measures import MEASURES, OBJECTIVE, logged


def best_checkpoint(dirpath: str, filename: str = "best_{step:07d}", measure: str = OBJECTIVE) -> ModelCheckpoint:
    """Return what keeps the checkpoint whose validation has the best value of a measure.

    Args:
        dirpath: folder of the checkpoint.
        filename: its name, with the step in it.
        measure: of those that validation knows.
    """
    return ModelCheckpoint(
        dirpath,
        filename,
        monitor=logged(measure),
        mode="max" if MEASURES[measure].better == "up" else "min",
        save_top_k=1,
        auto_insert_metric_name=False,
    )

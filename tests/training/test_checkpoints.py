"""The best checkpoint is chosen by the table of measures."""

from pathlib import Path

from pytorch_lightning.callbacks import ModelCheckpoint

from pdnla.training.checkpoints import best_checkpoint


def test_the_best_checkpoint_is_the_objectives_and_goes_on_where_older_runs_stopped(tmp_path: Path) -> None:
    best = best_checkpoint(str(tmp_path))
    assert (best.monitor, best.mode) == ("val/chroma_error", "min")
    assert best.state_key == ModelCheckpoint(monitor="val/chroma_error", mode="min").state_key


def test_a_measure_that_is_better_up_is_maximised(tmp_path: Path) -> None:
    best = best_checkpoint(str(tmp_path), measure="psnr")
    assert (best.monitor, best.mode) == ("val/psnr", "max")

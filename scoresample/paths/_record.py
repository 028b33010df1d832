"""What a training run leaves to look at."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingRecord:
    """The history of one training run.

    A score carries its record along; all records compare equal, so that retrained scores share one compilation.

    Attributes:
        train_loss: mean loss of each epoch, without penalties. Trained on draws alone, 1 is a network that knows
            nothing, and most of the loss is noise that no network can predict; with target scores most of that noise is
            gone.
        validation_loss: the loss of the averaged weights on held-out points with fixed noise, each time it was taken.
        validation_epochs: the epochs after which it was taken, counted from 0.
        best_epoch: the epoch whose averaged weights were kept: the one of the smallest held-out loss, or with
            ``keep="last"`` the last.
        level_edges: edges of the noise levels (sigma, data standard deviations) of `loss_by_level`.
        loss_by_level: held-out loss of the kept weights in each band of noise levels.
        num_train: number of training points.
        num_validation: number of held-out points.
        num_parameters: number of weights.
        seconds: wall clock, compilation included.
        epoch_seconds: median wall clock of an epoch once everything was compiled, nan where there was too little to
            measure.
        smallest_scale: the smallest standard deviation found in the data, in units of standardised ones: of the
            narrowest direction of the narrowest mode. nan where there were too few points for it. Sampling should stop
            at noise of a tenth of it or less.
    """

    train_loss: np.ndarray
    validation_loss: np.ndarray
    validation_epochs: np.ndarray
    best_epoch: int
    level_edges: np.ndarray
    loss_by_level: np.ndarray
    num_train: int
    num_validation: int
    num_parameters: int
    seconds: float
    epoch_seconds: float = float("nan")
    smallest_scale: float = float("nan")

    def __eq__(self, other: object) -> bool:
        """All records are equal: they never tell two scores apart."""
        return isinstance(other, TrainingRecord)

    def __hash__(self) -> int:
        """The same for all records."""
        return hash(TrainingRecord)

    @property
    def best_loss(self) -> float:
        """The held-out loss of the kept weights."""
        return float(self.validation_loss[np.searchsorted(self.validation_epochs, self.best_epoch)])

    def __str__(self) -> str:
        """A line for people."""
        return (
            f"{len(self.train_loss)} epochs on {self.num_train} points in {self.seconds:.0f} s, held-out loss "
            f"{self.best_loss:.4f} at epoch {self.best_epoch + 1}"
        )


def recorded_scale(record: object) -> Array | None:
    """The smallest scale of the data in the record of a training, or None where none was found."""
    if not isinstance(record, TrainingRecord) or not np.isfinite(record.smallest_scale):
        return None
    return jnp.asarray(record.smallest_scale, dtype=float)

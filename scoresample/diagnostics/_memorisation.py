"""Are draws new, or copies of the training set: nearest training points of draws and of held-out points."""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scoresample.checks import Check
from scoresample.diagnostics._memorisation_checks import copies_check, nearness_check
from scoresample.diagnostics._neighbours import two_nearest
from scoresample.diagnostics._point_sets import (
    FEWEST_POINTS,
    distinct_rows,
    point_set,
    scales_of,
    shared_rows,
    spaced_rows,
)

_FARTHER = 2.0
"""A ratio of median distances beyond which draws are said to lie off the data."""


@dataclasses.dataclass(frozen=True, eq=False)
class Memorisation:
    """What `memorisation` found; arrays have one entry for each draw, or for each held-out point.

    Attributes:
        distance: distance of a draw to its nearest training point, in units of the scale.
        ratio: that distance over the one to the second nearest.
        held_out_distance: distance of a held-out point to its nearest training point.
        held_out_ratio: that distance over the one to the second nearest.
        limit: a draw whose ratio is below it counts as memorised.
        num_training: number of distinct training points.
        num_repeated: number of training points that repeat another, which were left out.
        dimension: number of coordinates.
    """

    distance: np.ndarray
    ratio: np.ndarray
    held_out_distance: np.ndarray
    held_out_ratio: np.ndarray
    limit: float
    num_training: int
    num_repeated: int
    dimension: int

    @property
    def fraction(self) -> float:
        """Fraction of the draws that count as memorised."""
        return float(np.mean(self.ratio < self.limit))

    @property
    def fraction_se(self) -> float:
        """Standard error of `fraction`."""
        return _fraction_error(self.ratio < self.limit)

    @property
    def chance(self) -> float:
        """Fraction of the held-out points that would count as memorised: the chance rate."""
        return float(np.mean(self.held_out_ratio < self.limit))

    @property
    def chance_se(self) -> float:
        """Standard error of `chance`."""
        return _fraction_error(self.held_out_ratio < self.limit)

    @property
    def excess(self) -> float:
        """``fraction - chance``."""
        return self.fraction - self.chance

    @property
    def excess_se(self) -> float:
        """Standard error of `excess`."""
        return float(np.hypot(self.fraction_se, self.chance_se))

    @property
    def share(self) -> float:
        """``(fraction - chance)/(1 - chance)``: the share of copies, if all other draws are new.

        Negative where chance or draws far from the data make it so; nan where the chance rate is 1.
        """
        return self.excess / (1 - self.chance) if self.chance < 1 else float("nan")

    @property
    def share_se(self) -> float:
        """Standard error of `share`, by the delta method."""
        if self.chance == 1:
            return float("nan")
        rest = 1 - self.chance
        return float(np.hypot(self.fraction_se / rest, (1 - self.fraction) * self.chance_se / rest**2))

    @property
    def distance_ratio(self) -> float:
        """Median distance of the draws over that of the held-out points.

        Far below 1 where draws sit on training points, far above 1 where they lie off the data.
        """
        return float(np.median(self.distance) / np.median(self.held_out_distance))

    @property
    def nearer(self) -> float:
        """Probability that a draw is nearer to the training set than a held-out point, ties counted half; .5 if new."""
        return float(np.mean(self._placements[0]))

    @property
    def nearer_se(self) -> float:
        """Standard error of `nearer` (DeLong, DeLong and Clarke-Pearson 1988, of the Mann-Whitney statistic)."""
        return float(np.sqrt(sum(np.var(each, ddof=1) / each.size for each in self._placements)))

    @cached_property
    def _placements(self) -> tuple[np.ndarray, np.ndarray]:
        """For each draw the share of held-out points farther away, for each held-out point that of nearer draws."""
        return 1 - _below(self.held_out_distance, self.distance), _below(self.distance, self.held_out_distance)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Two facts that `compare` adds to the verdict on the run."""
        copies = copies_check(self.fraction, self.chance, self.excess, self.excess_se, self.limit)
        return copies, nearness_check(self.nearer, self.nearer_se, self.distance_ratio)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each draw and for each held-out point."""
        rows = {
            "draws": pd.DataFrame({"distance": self.distance, "ratio": self.ratio}),
            "held out": pd.DataFrame({"distance": self.held_out_distance, "ratio": self.held_out_ratio}),
        }
        return pd.concat(rows, names=["points"]).reset_index(level=0).reset_index(drop=True)

    @property
    def meaning(self) -> str:
        """What was found, in a few sentences."""
        rule = f"nearer to one training point than {self.limit:.2g} times the distance to any other"
        text = (
            f"{self.fraction:.1%} of {self.ratio.size:,} draws are {rule} (± {self.fraction_se:.1%}); so are "
            f"{self.chance:.1%} of {self.held_out_ratio.size:,} held-out points (± {self.chance_se:.1%}), by chance. "
        )
        copies, near = self.checks
        if not copies.passed:
            text += f"If all other draws are new, {self.share:.0%} of them are copies (± {self.share_se:.0%}). "
        elif self.chance > 0.2:
            text += "Chance is high, as it is on curves, so this rule alone says little. "
        else:
            text += "No more copies than chance makes are seen. "
        text += (
            f"The median distance to the training set is {self.distance_ratio:.3g} times that of held-out points, and "
            f"a draw is nearer than a held-out point with probability {self.nearer:.2f} (± {self.nearer_se:.2g}; "
        )
        if not near.passed:
            return f"{text}new draws would have 0.5): the draws lie closer to the training points than new data do."
        if self.distance_ratio > _FARTHER:
            return f"{text}new draws would have 0.5): the draws lie off the data, which is no matter of memorisation."
        return f"{text}new draws would have 0.5)."

    def __str__(self) -> str:
        """What was found, for a terminal."""
        repeated = f" ({self.num_repeated:,} repeated ones left out)" if self.num_repeated else ""
        heading = (
            f"Memorisation: {self.ratio.size:,} draws and {self.held_out_ratio.size:,} held-out points against "
            f"{self.num_training:,} training points{repeated} in {self.dimension:,} "
            f"dimension{'' if self.dimension == 1 else 's'}"
        )
        return "\n".join([heading, "", self.meaning, "", *(str(check) for check in self.checks)])


def memorisation(
    draws: Any,
    training: Any,
    held_out: Any,
    *,
    ratio: float = 1 / 3,
    scale: Any = "coordinates",
    num_draws: int = 2000,
) -> Memorisation:
    """Are the draws new, or copies of the training set?

    The score of the training points themselves, each with noise around it, is what unlimited training on a finite set
    converges to, and its draws are the training points again (Pidstrigach 2022, arXiv 2206.01018). Two facts tell
    such draws from new ones, both held against held-out points of the data, which are new:

    * With d1 and d2 the distances to the nearest and the second nearest distinct training point, a draw counts as
      memorised if ``d1/d2 < 1/3`` (Yoon et al. 2023, *Diffusion probabilistic models generalize when they fail to
      memorize*; Gu et al. 2023, arXiv 2310.02664). The same fraction of held-out points is the chance rate.
      Where the data fill k dimensions densely, ``(d1/d2)^k`` is uniform for a new draw, so the chance rate is ``3^-k``:
      a third on a curve, and nothing to speak of from k = 5 on.
    * The probability that a draw is nearer to the training set than a held-out point, which is one half for new draws
      whatever k. It also sees draws near training points that the ratio does not count.

    Repeated training points are left out: the second copy would be the second nearest point, and hide the first.
    Nearly equal ones (an image, saved twice) stay and do hide each other from the ratio, not from the distances.

    Draws that keep some noise, of a path stopped early and not denoised, are farther from the data than clean held-out
    points: both facts then miss copies rather than invent them. Add the same noise to `held_out` to make up for it.

    Arguments:
        draws: the draws to judge: an array (n, ...), a tree of arrays with one leading axis, or
            [`Draws`][scoresample.Draws], which are cut down to what they are worth (weights are used up).
        training: all the points that the score was trained on, likewise, in the same coordinates (those that the
            sampler moves in). Of `Draws` every position is taken.
        held_out: points of the data that were not trained on, likewise; `Draws` are cut down as the draws are.
        ratio: a draw counts as memorised if d1/d2 is below it.
        scale: what the coordinates are divided by before distances are taken. ``"coordinates"``: the training set's
            standard deviations (a coordinate that is the same in 98% of its points gets the root mean square of the
            others). ``"none"``: nothing, as for images. Else scales of your own, like one training point or a number.
        num_draws: most draws, and most held-out points, to use; chosen at even distances.

    Returns:
        The `Memorisation`: `print` shows it, `checks` are two checks, and `compare(..., memorisation=)` adds these to
        the verdict on the run.

    Raises:
        TypeError: if `draws`, `training` or `held_out` hold no numbers.
        ValueError: if they do not fit each other, are too few or not finite, held-out points are among the training
            points, or a setting is out of its range.

    Examples:
        >>> import numpy as np
        >>> import scoresample as ss
        >>> data = np.random.default_rng(0).normal(size=(3000, 5))
        >>> training, held_out, new = np.split(data, 3)
        >>> found = ss.memorisation(new, training, held_out)
        >>> found.fraction < 0.02, all(check.passed for check in found.checks)
        (True, True)
        >>> ss.memorisation(training[:200] + 1e-3, training, held_out).fraction
        1.0
    """
    _check_numbers(ratio, num_draws)
    known = point_set(training, "training", effective=False)
    new = point_set(held_out, "held_out", known.structure)
    made = point_set(draws, "draws", known.structure)
    leaked = shared_rows(new, known)
    if leaked:
        raise ValueError(
            f"`held_out`: {leaked:,} of {len(new.rows):,} points are also in `training`: they say nothing of chance. "
            "Drop them, or hold out points that were not trained on."
        )
    distinct = distinct_rows(known.rows)
    if len(distinct) < 2:
        raise ValueError("`training`: all points are equal, so there is no second nearest. Pass the training set.")
    scales, centre = scales_of(scale, known), distinct.mean(axis=0)
    sides = [(spaced_rows(each.rows, num_draws) - centre) / scales for each in (made, new)]
    nearest = two_nearest(np.concatenate(sides), (distinct - centre) / scales)
    distances, ratios = nearest[:, 0], nearest[:, 0] / nearest[:, 1]
    split = len(sides[0])
    return Memorisation(
        distance=distances[:split],
        ratio=ratios[:split],
        held_out_distance=distances[split:],
        held_out_ratio=ratios[split:],
        limit=ratio,
        num_training=len(distinct),
        num_repeated=len(known.rows) - len(distinct),
        dimension=distinct.shape[1],
    )


def _check_numbers(ratio: float, num_draws: int) -> None:
    if not 0 < ratio < 1:
        raise ValueError(f"`ratio` must lie between 0 and 1, got {ratio}: 1/3 is usual.")
    if num_draws < FEWEST_POINTS:
        raise ValueError(f"`num_draws` must be at least {FEWEST_POINTS}, got {num_draws}: fewer say too little.")


def _fraction_error(flags: np.ndarray) -> float:
    """Standard error of a fraction, with one more of either kind, so that it is never zero."""
    middle = (np.sum(flags) + 1) / (flags.size + 2)
    return float(np.sqrt(middle * (1 - middle) / flags.size))


def _below(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """For each limit the share of the values below it, ties counted half."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, limits, "left") + np.searchsorted(ordered, limits, "right")) / (2 * values.size)

"""What the measures of a score near its manifold mean, in words."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scoresample.diagnostics._manifold_health import ManifoldHealth

BLOW_UP, DIMENSION, NORMAL_SPACE, ENERGY, STOPPING = (
    "Blow-up",
    "Intrinsic dimension",
    "Normal space",
    "Finite energy",
    "Where sampling stops",
)
"""The headings, in order."""


def manifold_paragraphs(health: "ManifoldHealth") -> dict[str, str]:
    """A paragraph for each measure, under its heading.

    Arguments:
        health: what `manifold_health` found.
    """
    return {
        BLOW_UP: _blow_up(health),
        DIMENSION: _dimension(health),
        NORMAL_SPACE: _normal_space(health),
        ENERGY: _energy(health),
        STOPPING: _stopping(health),
    }


def _number(value: float) -> str:
    """Two decimals, but no false precision of large values and no minus zero."""
    return f"{value:.3g}" if abs(value) >= 100 else f"{round(float(value), 2) + 0.0:.2f}"


def _blow_up(health: "ManifoldHealth") -> str:
    value, error = health.dimensions["blow-up"]
    text = (
        "Near a manifold of dimension k the score has to grow like 1/sigma in the other directions, so that sigma^2 "
        f"E|s|^2 tends to {health.size} - k. At noise {health.spectrum_noise:.3g} it is "
        f"{_number(health.size - value)}, which leaves k = {_number(value)} ± {error:.2g}; at the last level, "
        f"{health.noise[-1]:.3g}, it is {_number(health.blow_up[-1])} ± {health.blow_up_se[-1]:.2g}."
    )
    if not health.enough_points:
        text += f" This takes 2,000 draws to be worth reading; here there were {health.num_points:,}."
    if health.blow_up[-1] - 3 * health.blow_up_se[-1] > 1.05 * health.size:
        text += (
            " It exceeds the number of coordinates: the score drives held-out points to other points than their own."
        )
    return text


def _dimension(health: "ManifoldHealth") -> str:
    value, error = health.dimensions["FLIPD"]
    text = (
        f"FLIPD, the local dimension that the score sees at clean held-out points, stands at {value:.2f} ± {error:.2g} "
        f"at noise {health.spectrum_noise:.3g}, where it changes least. "
    )
    if math.isfinite(health.break_noise):
        text += (
            f"From noise {health.break_noise:.3g} on down it breaks: there the score is not that of the data's own "
            "noised law but follows the sample, or errors of the network. "
        )
    else:
        text += "It does not break down to the last level. "
    whose = "training" if health.num_training else "held-out"
    text += f"The {whose} points are {health.spacing:.3g} from their nearest neighbours (median)."
    if health.flipd_training is not None:
        gap = health.flipd - health.flipd_training
        place = int(np.argmax(np.where(np.isfinite(gap), gap, np.inf)))
        text += (
            f" At training points it is {_number(health.flipd_training[place])} where it is "
            f"{_number(health.flipd[place])} at "
            f"held-out ones (noise {health.noise[place]:.3g}, where they differ most); the true score makes no "
            "difference between them."
        )
    return text


def _normal_space(health: "ManifoldHealth") -> str:
    if health.spectrum is None:
        return (
            f"The span of the scores around a point was not computed: in {health.size:,} dimensions it takes too long, "
            "and in fewer coordinates it says nothing."
        )
    value = health.dimensions["spectrum"].value
    if not math.isfinite(value):
        return (
            f"Scores around a point of the data at noise {health.spectrum_noise:.3g} show no gap between the "
            "directions in which they undo the noise and the others: the noise is not far below the scales of the "
            "data, or the score is not that of a manifold."
        )
    normal = health.size - int(value)
    others = [
        f"{name} {estimate.value:.2f}" for name, estimate in health.dimensions.items() if name not in ("spectrum",)
    ]
    return (
        f"Scores around a point of the data at noise {health.spectrum_noise:.3g} push along {normal} of {health.size} "
        f"directions as strongly as the noise they undo: the normal space. That leaves a manifold of dimension "
        f"{int(value)}. The other estimates: {', '.join(others)} (that of the draws is by the distances of neighbours, "
        "and sees no direction thinner than those)."
    )


def _energy(health: "ManifoldHealth") -> str:
    energy = health.energy
    said = {
        "finite": "The integral converges: draws of the reverse SDE reach the whole support of the data, and stay on "
        "it if the error is bounded off the data too.",
        "infinite": "The integral is infinite: nothing guarantees that draws keep to the support. "
        + _displacement(health),
        "cannot tell": "Whether the integral is finite cannot be told from these levels"
        + ("." if energy.seen else f": {_unseen(health)}."),
    }[energy.verdict]
    text = (
        "The error of the score, sigma^2 E|s - s*|^2 integrated over log noise, is the divergence between the paths of "
        f"the reverse SDE and the true ones. At the last level it adds {energy.rate[-1]:.3g} ± "
        f"{energy.rate_se[-1]:.2g} nats for each e-fold of noise"
    )
    if math.isfinite(energy.slope):
        slope = f"{round(energy.slope, 2) + 0.0:.2f} ± {energy.slope_se:.2g}"
        text += f", and changes with its power {slope} (2 for an error that stays bounded, 0 for one like 1/sigma)"
    text += f". {said}"
    if energy.source == "exact":
        return f"{text} Over the levels shown it comes to {energy.total:.3g} ± {energy.total_se:.2g} nats."
    known = "the given dimension" if energy.source == "dimension" else "the dimension that the draws show"
    text += (
        " This is without the exact score, and weaker: the error is taken to be the held-out denoising loss less what "
        f"no score can do better than, for which {known} stands ({energy.dimension:.2f} ± {energy.dimension_se:.2g}), "
        "at little noise only."
    )
    if energy.source == "neighbours":
        text += " An excess counts only where the score contradicts itself too."
    return text


def _displacement(health: "ManifoldHealth") -> str:
    """How far the error moves a denoised point: the noise times the root of the rate."""
    rate = float(health.energy.rate[-1])
    if not math.isfinite(rate) or rate <= 0:
        return "The score is not finite there, or its error cannot be measured."
    distance = float(health.noise[-1]) * math.sqrt(rate)
    return f"At the last level the error moves a denoised point by {distance:.2g} (root mean square)."


def _unseen(health: "ManifoldHealth") -> str:
    energy = health.energy
    if energy.rate[-1] <= 3 * energy.rate_se[-1]:
        return "no error of the score is visible"
    return (
        "the loss is larger than that dimension explains, but the score does not contradict itself, so that the data "
        "may have directions that are thinner than the distances of the draws show"
    )


def _stopping(health: "ManifoldHealth") -> str:
    drop, error = health.stopping_drop, health.stopping_drop_se
    between = f"Between noise {2 * health.noise[-1]:.3g} and {health.noise[-1]:.3g}, where sampling stops, "
    if drop < -3 * error - 0.03:
        return (
            f"{between}the dimension that the blow-up leaves falls by {-drop:.3g} ± {error:.2g}: the score grows "
            "faster there than the noise calls for."
        )
    return (
        f"{between}{drop:.3g} ± {error:.2g} dimensions come into sight. A direction ten times the last noise adds "
        "0.03: much more means that finer directions come out blurred."
    )

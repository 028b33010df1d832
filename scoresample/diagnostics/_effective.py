"""A run cut down to the draws it is worth, so that samples of different kinds can be compared fairly."""

import numpy as np

from scoresample.diagnostics._chains import effective_sizes
from scoresample.diagnostics._quantities import coordinates
from scoresample.diagnostics._weights import normalized_weights, systematic_resample
from scoresample.inference import Draws


def effective_draws(draws: Draws, *, minimum: int = 1, seed: int = 0) -> np.ndarray:
    """As many draws of a run as it is worth, spread evenly over its chains.

    The number is the smallest bulk ESS of any coordinate, rounded down: a chain of 4,000 draws with an ESS of 400
    gives 400 of them. Weights are used up on the way (systematic resampling), so what comes back is unweighted.

    Arguments:
        draws: any run with finite positions.
        minimum: return at least this many draws (where there are so many), even if they are worth fewer.
        seed: seed of the resampling; unweighted draws are thinned at even distances.

    Returns:
        An array of shape (number, dimension), in the order of `coordinates`.
    """
    flat = coordinates(draws)
    columns = {str(index): flat[..., index] for index in range(flat.shape[-1])}
    total = flat.shape[0] * flat.shape[1]
    sizes = np.array(list(effective_sizes(draws, columns).values()))
    worth = int(np.nanmin(sizes)) if np.any(np.isfinite(sizes)) else 1
    number = min(max(worth, minimum, 1), total)
    chosen = systematic_resample(normalized_weights(draws), number, seed=seed)
    return flat.reshape(total, -1)[chosen]

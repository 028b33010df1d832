"""The classifier two-sample test: how often a small network tells draws from a reference."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

from scoresample.diagnostics._null import Distance, matched_samples, random_halves, same_dimension

NUM_FOLDS = 5
"""Parts of the cross-validation."""

UNITS_PER_DIMENSION = 10
"""Units of each of the two hidden layers, for each dimension of the samples."""

MAX_ITERATIONS = 10_000
"""Most passes over the data; training usually ends before a tenth of it, once the loss no longer falls."""

NUM_CLASSIFIER_SPLITS = 5
"""Random halvings of the reference behind the null: each trains as many networks as there are folds."""


def c2st(reference: np.ndarray, draws: np.ndarray, *, seed: int = 1, num_processes: int = 1) -> float:
    """Classifier two-sample test: the share of draws that a classifier gives to the right sample.

    A network with two hidden layers of 10 * dimension rectified linear units learns to tell the two samples apart,
    and is scored by its accuracy under five-fold cross-validation. Both samples are first standardised by the means
    and standard deviations of the reference (a coordinate without spread is only centred). Samples of equal size
    from the same distribution give 0.5 on average, and by chance a little more or less; samples that are always told
    apart give 1.0. With unequal sizes the classifier can bet on the larger one, and 0.5 is no longer the baseline.
    That a network stopped before its loss had settled is no reason to warn here: the scikit-learn
    `ConvergenceWarning`, and no other, is suppressed.

    Arguments:
        reference: a sample of shape (n, dimension), with n at least 5.
        draws: a sample of shape (m, dimension), with m at least 5.
        seed: seed of the folds and of the networks: the same seed gives the same accuracy.
        num_processes: how many folds are trained side by side. One thread of ten thousand draws on each side takes
            seconds in two dimensions and some minutes in ten.

    Returns:
        The mean accuracy over the folds, between 0 and 1, whatever the units of the samples.

    Raises:
        ValueError: if the samples are not two matrices of the same dimension, have fewer draws than there are folds,
            or are not finite.

    Source: Lopez-Paz and Oquab (2017), *Revisiting classifier two-sample tests*, section 3, equation 2, with the
    classifier of Lueckmann, Boelts, Greenberg, Goncalves and Macke (2021), *Benchmarking simulation-based inference*,
    as the function ``c2st`` of their package `sbibm` sets it.

    Examples:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> reference, draws = generator.normal(size=(2, 200, 1))
        >>> abs(c2st(reference, draws) - 0.5) < 0.1
        True
    """
    draws, reference = same_dimension(draws, reference)
    if min(len(draws), len(reference)) < NUM_FOLDS:
        raise ValueError(
            f"`draws` has {len(draws)} and `reference` {len(reference)} draws: at least {NUM_FOLDS} are needed of each."
        )
    for name, side in (("draws", draws), ("reference", reference)):
        if not np.all(np.isfinite(side)):
            raise ValueError(f"`{name}` has values that are not finite: leave out their draws.")
    centre, spread = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    points = (np.concatenate((reference, draws)) - centre) / np.where(spread > 0, spread, 1.0)
    # The benchmark's own classifier sees single precision, which is a sixth faster, too.
    points = points.astype(np.float32)
    labels = np.repeat([0, 1], [len(reference), len(draws)])
    units = UNITS_PER_DIMENSION * points.shape[1]
    network = MLPClassifier(
        hidden_layer_sizes=(units, units), activation="relu", solver="adam", max_iter=MAX_ITERATIONS, random_state=seed
    )
    folds = KFold(NUM_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(network, points, labels, cv=folds, scoring="accuracy", n_jobs=num_processes)
    return float(np.mean(scores))


def c2st_to_reference(
    draws: np.ndarray, reference: np.ndarray, *, seed: int = 1, num_splits: int = NUM_CLASSIFIER_SPLITS
) -> Distance:
    """Classifier two-sample test against a reference, with its null.

    Sizes, standardisation and null are those of `sliced_wasserstein_to_reference`, but for the number of splits:
    a single test of a thousand draws on each side takes from a second in one dimension to a minute in five, and two
    of them make the value and `num_splits` the null. With so few, `null_95` is hardly less than the largest of them.

    Arguments:
        draws: a sample of shape (n, dimension), with n at least 5.
        reference: a sample of shape (m, dimension), with m at least 10.
        seed: seed of the subsamples, of the splits, of the folds and of the networks.
        num_splits: how many random halvings of the reference make the null.

    Returns:
        The `Distance`: accuracies, of which 0.5 is the best and 1.0 the worst. By chance they can be below 0.5.

    Raises:
        ValueError: if there is nothing to compare, or no split.

    Source: `c2st`; the null by permutation is that of `sliced_wasserstein_to_reference`.

    Examples:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> reference = generator.normal(size=(100, 1))
        >>> distance = c2st_to_reference(generator.normal(size=(100, 1)), reference, num_splits=1)
        >>> distance.size, distance.null.shape, abs(distance.value - 0.5) < 0.25
        (50, (1,), True)
    """
    if num_splits < 1:
        raise ValueError(f"`num_splits` must be at least 1, but is {num_splits}.")
    pool, pairs = matched_samples(draws, reference, seed, least=NUM_FOLDS)
    value = np.mean([c2st(y, x, seed=seed) for x, y in pairs])
    halves = random_halves(len(pool), seed, num_splits)
    null = np.array([c2st(pool[half], pool[~half], seed=seed) for half in halves])
    return Distance(float(value), null, len(pool) // 2)

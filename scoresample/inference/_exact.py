"""Exact draws of densities in closed form, as the same kind of result as any sampler's."""

import time

import jax
import numpy as np
from jaxtyping import Array

from scoresample.inference._about import run_attributes
from scoresample.inference._doors import check_count, check_key
from scoresample.inference._draws import Draws
from scoresample.inference._progress import compile_seconds
from scoresample.scores import AbstractExactDensity


def exact_draws(density: AbstractExactDensity, *, key: Array, num_samples: int = 4000) -> Draws:
    """Independent exact draws of a density in closed form: a reference to compare samplers with.

    Arguments:
        density: a [`Gaussian`][scoresample.Gaussian] or [`GaussianMixture`][scoresample.GaussianMixture].
        key: random key.
        num_samples: number of draws.

    Returns:
        Independent draws, (1, num_samples), that cost no score evaluation.

    Raises:
        TypeError: if the density has no exact draws.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> ss.exact_draws(ss.Gaussian(jnp.zeros(2), 1.0), key=jax.random.key(0), num_samples=5).position.shape
        (1, 5, 2)
    """
    if not isinstance(density, AbstractExactDensity):
        raise TypeError(f"`density` must have exact draws (Gaussian, GaussianMixture), got {type(density).__name__}.")
    num_samples = check_count("num_samples", num_samples, 1)
    started, compiled = time.perf_counter(), compile_seconds()
    position = jax.block_until_ready(density.sample(check_key(key), num_samples))
    return Draws(
        position=jax.tree.map(lambda x: np.asarray(x)[None], position),
        kind="independent",
        log_weights=None,
        stats={"non_finite": np.zeros((1, num_samples), bool)},
        info={"num_warmup": 0, "num_evaluations": 0, "checks": [], "compile_seconds": compile_seconds() - compiled},
        nfe=0.0,
        seconds=time.perf_counter() - started,
        constrain=density.constrain,
        attributes=run_attributes("exact draws", "{}", density),
    )

"""Calibration of an amortised posterior: simulate, sample all posteriors at once, test."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from scoresample.diagnostics import interval_coverage, simulation_based_calibration, tarp
from scoresample.inference import check_count, check_key, sample
from scoresample.paths import AbstractScorePath, ConditionalPath
from scoresample.samplers import AbstractParticleSampler, ProbabilityFlowODE
from scoresample.scores import Position, check_structure, named_sites
from scoresample.workflows._calibration import Calibration
from scoresample.workflows._fit_posterior import AmortisedPosterior

_FEWEST_SIMULATIONS = 100
"""Bands of fewer are so wide that hardly anything leaves them."""
_FEWEST_DRAWS = 10
_NUM_TESTS = 3


def calibrate(
    posterior: AbstractScorePath | AmortisedPosterior,
    simulate: Callable[[Array, int], tuple[Position, PyTree]] | None = None,
    *,
    key: Array,
    num_simulations: int = 1000,
    num_draws: int = 200,
    sampler: AbstractParticleSampler[Any] | None = None,
    batch_size: int | None = 10_000,
    quantities: Callable[[Position], Mapping[str, Array]] | None = None,
    level: float = 0.05,
    progress: bool | None = None,
) -> Calibration:
    """Test whether an amortised posterior is calibrated: whether its uncertainties are those it should have.

    Truths and observations are simulated, and the posterior of each observation is sampled: all of them in one run, as
    particles with conditions of their own, so that a thousand posteriors take one compilation. Three tests follow.

    * [`simulation_based_calibration`][scoresample.diagnostics.simulation_based_calibration]: the truth's rank in every
      quantity is uniform.
    * [`interval_coverage`][scoresample.diagnostics.interval_coverage]: central intervals hold the truth as often as
      they say.
    * [`tarp`][scoresample.diagnostics.tarp]: a joint test, with references that depend on the observations. It alone
      sees wrong correlations and a posterior that returns the prior.

    What is tested is score and sampler together: `discretisation_error` tells how much of what is found is the
    sampler's. All tests average over observations from the simulator. A posterior can pass them and be wrong at a
    single observation, above all at one that the simulator hardly ever makes:
    [`local_c2st`][scoresample.diagnostics.local_c2st] and
    [`posterior_predictive_check`][scoresample.posterior_predictive_check] look there.

    Memory holds ``num_simulations * num_draws`` positions and conditions; of large fields test a few `quantities` with
    fewer simulations.

    Arguments:
        posterior: what [`fit_posterior`][scoresample.fit_posterior] returned; or a conditional path, such as that of
            ``fit_score(data, conditions=...)``.
        simulate: (key, number) -> (positions, conditions), draws of prior and simulator with a leading axis, in the
            path's own coordinates. Called once, not traced. None for the posterior's own simulator. Beside a
            `fit_posterior`, observations may be a list, of sets that differ in their number of parts.
        key: random key.
        num_simulations: how many truths to simulate, at least 100.
        num_draws: draws of each posterior, at least 10.
        sampler: any path sampler whose particles are independent; by default
            ``ProbabilityFlowODE(num_steps=20, solver="dpm-solver++2m")``.
        batch_size: run at most this many particles at a time, to bound memory.
        quantities: position -> named scalars or arrays to rank, in place of the entries of the named sites, such as
            ``theta[0]``. Functions of several coordinates test how these hang together. Entries that never vary are
            left out.
        level: the probability that a calibrated posterior fails any check.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        The [`Calibration`][scoresample.Calibration].

    Raises:
        TypeError: if the posterior takes no conditions, or the sampler runs chains.
        ValueError: if a number is out of range, what `simulate` returns does not fit, or no quantity varies.
        SamplingError: if draws are not finite.

    Source: Talts et al. 2018, arXiv 1804.06788; Säilynoja, Bürkner and Vehtari 2022, arXiv 2103.10522; Hermans et al.
    2022, arXiv 2110.06581; Lemos et al. 2023, arXiv 2302.03026.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> def simulate(key, num):  # theta ~ N(0, 1), x = theta + N(0, 1)
        ...     theta, noise = jax.random.normal(key, (2, num, 1))
        ...     return theta, theta + noise
        >>> def denoiser(y, s, x):  # of the posterior N(x/2, 1/2)
        ...     return x / 2 + (y - x / 2) / (1 + 2 * s**2)
        >>> posterior = ss.PerturbedScore(
        ...     denoiser,
        ...     ss.VE(0.01, 30.0),
        ...     structure=jnp.zeros(1),
        ...     prediction="denoised",
        ...     time="sigma",
        ...     condition=jnp.zeros(1),
        ... )
        >>> found = ss.calibrate(posterior, simulate, key=jax.random.key(0), num_simulations=300, num_draws=50)
        >>> found.passed, found.sbc.words
        (True, ('calibrated',))
    """
    started = time.perf_counter()
    key = check_key(key)
    num_simulations = check_count("num_simulations", num_simulations, _FEWEST_SIMULATIONS, "Fewer tell nothing.")
    num_draws = check_count("num_draws", num_draws, _FEWEST_DRAWS, "Ranks among fewer are too coarse.")
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, got {level}.")
    key_simulate, key_sample, key_seed = jax.random.split(key, 3)
    if isinstance(posterior, AmortisedPosterior):
        simulate = posterior.simulate if simulate is None else simulate
        posterior, simulate = _encoded(posterior, simulate(key_simulate, num_simulations))
    if simulate is None:
        raise ValueError("`simulate` is needed beside a conditional path: (key, number) -> (positions, conditions).")
    if not isinstance(posterior, AbstractScorePath) or not isinstance(posterior, ConditionalPath):
        raise TypeError(
            f"`posterior` must be a path with conditions, got {type(posterior).__name__}. Train one with "
            "fit_score(data, conditions=...), or name the shape of a condition: PerturbedScore(..., condition=)."
        )
    sampler = _checked_sampler(sampler)
    positions, conditions = _simulations(simulate, key_simulate, num_simulations, posterior)
    repeated = jax.tree.map(lambda x: np.repeat(x, num_draws, axis=0), conditions)
    drawn = sample(
        posterior.given(repeated),
        sampler,
        key=key_sample,
        num_chains=1,
        num_samples=num_simulations * num_draws,
        batch_size=batch_size,
        progress=progress,
    )
    particles = jax.tree.map(lambda x: np.asarray(x)[0], drawn.position)
    show = drawn.constrain if quantities is None else quantities
    names, truths, draws = _quantities(show, positions, particles, num_draws)
    flat = _flattened(positions)
    flat_draws = _flattened(particles).reshape(num_simulations, num_draws, -1)
    log_weights = None
    if drawn.log_weights is not None:
        log_weights = np.asarray(drawn.log_weights).reshape(num_simulations, num_draws)
    settings: dict[str, Any] = {
        "log_weights": log_weights,
        "level": level / _NUM_TESTS,
        "seed": int(jax.random.bits(key_seed)),
    }
    return Calibration(
        sbc=simulation_based_calibration(truths, draws, names=names, **settings),
        coverage=interval_coverage(truths, draws, names=names, **settings),
        tarp=tarp(flat, flat_draws, conditions=_flattened(conditions), **settings),
        level=float(level),
        num_simulations=num_simulations,
        num_draws=num_draws,
        sampler=type(sampler).__name__,
        nfe=drawn.nfe,
        seconds=time.perf_counter() - started,
        sampling_seconds=drawn.seconds,
        truths=flat,
        conditions=_flattened(conditions),
        draws=flat_draws,
    )


def _encoded(
    posterior: AmortisedPosterior, simulated: Any
) -> tuple[AbstractScorePath, Callable[[Array, int], tuple[Position, PyTree]]]:
    """The score, and a simulator whose observations are its conditions."""
    if not isinstance(simulated, tuple) or len(simulated) != 2:
        return posterior.score, lambda key, num: simulated
    encoded = posterior.encoding(posterior.encoding.batch(simulated[1])[0])
    return posterior.score_of_parts(encoded), lambda key, num: (simulated[0], encoded)


def _checked_sampler(sampler: Any) -> AbstractParticleSampler[Any]:
    if sampler is None:
        return ProbabilityFlowODE(num_steps=20, solver="dpm-solver++2m")
    if not isinstance(sampler, AbstractParticleSampler) or sampler.interacting:
        raise TypeError(
            f"`sampler` must be a path sampler whose particles are independent, since each has an observation of its "
            f"own, got {sampler!r}. Use ProbabilityFlowODE() or ReverseSDE()."
        )
    return sampler


def _simulations(simulate: Any, key: Array, num: int, posterior: AbstractScorePath) -> tuple[Position, PyTree]:
    """What the user simulated, on the host, if it fits."""
    result = simulate(key, num)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"`simulate` must return a pair (positions, conditions), got {type(result).__name__}.")
    positions, conditions = (jax.tree.map(np.asarray, part) for part in result)
    leaves = [*jax.tree.leaves(positions), *jax.tree.leaves(conditions)]
    if any(leaf.ndim < 1 or leaf.shape[0] != num for leaf in leaves):
        raise ValueError(
            f"`simulate` was asked for {num} simulations, so every array must have a leading axis of that length, got "
            f"the shapes {[leaf.shape for leaf in leaves]}."
        )
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), positions)
    check_structure(one, posterior.structure, name="simulate", what="simulated position")
    for leaf in leaves:
        count = int(np.sum(~np.isfinite(leaf)))
        if count:
            raise ValueError(f"`simulate` returned {count} numbers that are not finite. Leave out their simulations.")
    return positions, conditions


def _quantities(
    show: Callable[[Position], Mapping[str, Array]], positions: Position, particles: Position, num_draws: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names, truths of shape (simulations, quantities), and draws of shape (simulations, draws, quantities)."""
    truths, draws = _columns(show, positions), _columns(show, particles)
    varying = [name for name in truths if np.ptp(truths[name]) > 0 or np.ptp(draws[name]) > 0]
    if not varying:
        raise ValueError("`quantities`: none of them varies, so there is nothing to rank.")
    columns = np.stack([draws[name] for name in varying], axis=-1)
    return (
        tuple(varying),
        np.stack([truths[name] for name in varying], axis=-1),
        columns.reshape(-1, num_draws, len(varying)),
    )


def _columns(show: Callable[[Position], Mapping[str, Array]], positions: Position) -> dict[str, np.ndarray]:
    """The scalars of all positions by name, each of shape (num,)."""
    sites = named_sites(positions) if show is named_sites else _evaluate(show, positions)
    if not isinstance(sites, Mapping):
        raise TypeError(f"`quantities` must return a dictionary of named scalars, got {type(sites).__name__}.")
    found = {}
    for name, value in sites.items():
        value = np.asarray(value)
        for index in np.ndindex(value.shape[1:]):
            label = name + (f"[{', '.join(map(str, index))}]" if index else "")
            found[label] = value[(slice(None), *index)]
    return found


@eqx.filter_jit
def _evaluate(show: Callable[[Position], Any], positions: Position) -> Any:
    return jax.vmap(show)(positions)


def _flattened(tree: PyTree) -> np.ndarray:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)

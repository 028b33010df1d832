"""Checks that any score, path or sampler can be put through, ours or yours.

Each raises an `AssertionError` that says what is wrong and what most likely causes it.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.inference import sample
from scoresample.paths import (
    AbstractDensityPath,
    AbstractPerturbedScore,
    AbstractScorePath,
    score_particles,
)
from scoresample.samplers import AbstractParticleSampler, AbstractSampler
from scoresample.scores import AbstractDensityScore, AbstractScore, Position, random_like, structure_of

_NUM_POINTS = 8
_LEVELS = (0.3, 1.0, 3.0)
"""Noise levels of the regression check, in standard deviations of the data."""
_SLOPE_TOLERANCE = 0.2
_MOMENT_TOLERANCE = 0.5
"""Standardised data may have a mean of up to this many standard deviations, and a log sd of up to this."""
_MOST_POINTS = 4096
_COMPILED_TOLERANCE = 1e-2
"""Compiled code rounds otherwise, and near the data a denoiser's score divides that by the variance of the noise."""


def check_score(score: AbstractScore, *, key: Array, positions: Position | None = None) -> None:
    """Check that a score keeps the contract.

    The score must look like its position (tree, shapes, dtypes), be finite, and be the same under `jax.jit` and
    `jax.vmap`. With a density, the log density must be a scalar whose derivative is the score.

    Arguments:
        score: the score.
        key: random key of the test points.
        positions: points to check at, with a leading axis; by default standard normal ones.

    Raises:
        AssertionError: if the contract is broken; the message says where.
        ValueError: if the score has no structure and no positions are given.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> check_score(Gaussian(jnp.zeros(2), 1.0), key=jax.random.key(0))
    """
    if positions is None:
        if score.structure is None:
            raise ValueError("`positions`: this score has no structure, so give points to check it at.")
        positions = random_like(key, score.structure, _NUM_POINTS)
    one = jax.tree.map(lambda x: x[0], positions)
    value = score(one)
    _same_structure(value, one, "the score", "its position")
    batched = jax.vmap(score)(positions)
    _assert_finite(batched, "the score", "at some of the positions")
    _assert_close(
        jax.tree.map(lambda x: x[0], batched),
        value,
        "the score under jax.vmap",
        "the score itself",
        _COMPILED_TOLERANCE,
    )
    _assert_close(eqx.filter_jit(score)(one), value, "the score under jax.jit", "the score itself", _COMPILED_TOLERANCE)
    if isinstance(score, AbstractDensityScore):
        log_p = score.logdensity(one)
        assert jnp.shape(log_p) == (), f"the log density must be a scalar, it has shape {jnp.shape(log_p)}"
        both, also = score.value_and_score(one)
        _assert_close(both, log_p, "the value of value_and_score", "logdensity")
        _assert_close(also, value, "the score of value_and_score", "the score itself")
        _assert_close(
            jax.grad(score.logdensity)(one),
            value,
            "the derivative of logdensity",
            "the score. A score is the gradient of the log density, with a positive sign",
            tolerance=1e-3,
        )


def check_path(path: AbstractScorePath, data: Position | None = None, *, key: Array) -> None:
    """Check that a path keeps the contract and, given data, that its score has the right sign, scale and clock.

    With clean data z and noise e of the process, any exact perturbed score is a conditional mean,
    ``sigma s(z_t, t) = -E[e | z_t]``, so regressing ``-e`` on ``sigma s`` gives slope 1 at every noise level
    (Vincent 2011, Neural Computation 23(7)). A flipped sign gives -1, a score that is k times too large 1/k, a wrong
    parametrisation or clock a slope that changes with the level.

    Arguments:
        path: the path.
        data: draws of the target with a leading axis, in positions; without them only the contract is checked.
        key: random key of the test points and the noise.

    Raises:
        AssertionError: if the contract is broken, or the score does not fit the data; the message says how.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> data = 2.0 + jax.random.normal(jax.random.key(0), (1000, 2))
        >>> check_path(ss.perturb(ss.Gaussian(jnp.full(2, 2.0), 1.0), ss.VP()), data, key=jax.random.key(1))
    """
    key_reference, key_points, key_noise = jax.random.split(key, 3)
    particles = path.sample_reference(key_reference, _NUM_POINTS)
    _same_structure(jax.tree.map(lambda x: x[0], particles), path.structure, "one reference particle", "the structure")
    _assert_finite(particles, "the reference", "in some particles")
    positions = jax.vmap(path.frame.to_position)(random_like(key_points, path.structure, _NUM_POINTS))
    for t in (0.1, 0.5, 1.0):
        if path.condition_axes() is None:
            check_score(path.at(t), key=key_points, positions=positions)
        lipschitz = path.lipschitz(jnp.asarray(t))
        assert lipschitz is None or float(lipschitz) > 0, (
            f"the Lipschitz constant at t={t} is {lipschitz}, not positive"
        )
    if isinstance(path, AbstractDensityPath):
        one = jax.tree.map(lambda x: x[0], positions)
        gradient = jax.grad(lambda x: path.logdensity(x, 0.5))(one)
        _assert_close(gradient, path(one, 0.5), "the derivative of the path's logdensity", "its score", tolerance=1e-3)
    if isinstance(path, AbstractPerturbedScore):
        _check_clock(path)
        if data is not None:
            _check_against_data(path, data, key_noise)


def _check_clock(path: AbstractPerturbedScore) -> None:
    t = jnp.linspace(0.05, 1.0, 20)
    log_snr = jax.vmap(path.process.log_snr)(t)
    assert bool(jnp.all(jnp.diff(log_snr) < 0)), "log(alpha/sigma) must fall with t: t=0 is data, t=1 is noise"
    _assert_close(jax.vmap(path.process.time)(log_snr), t, "the process's time(log_snr(t))", "t", tolerance=1e-3)


def noise_slope(path: AbstractPerturbedScore, data: Position, noise_level: float, *, key: Array) -> tuple[float, float]:
    """The slope of ``-e`` on ``sigma s(z_t, t)`` over noised data, and its standard error; 1 for an exact score.

    Arguments:
        path: a perturbed score.
        data: draws of the target with a leading axis, in positions.
        noise_level: sigma/alpha, in standard coordinates.
        key: random key of the noise.
    """
    clean = jax.vmap(path.frame.to_standard)(data)
    t = jnp.asarray(path.process.time(-jnp.log(jnp.asarray(noise_level))))
    t = t.astype(jnp.result_type(*jax.tree.leaves(clean)))
    alpha, sigma = path.process.alpha(t), path.process.sigma(t)
    num = jax.tree.leaves(clean)[0].shape[0]
    noise = random_like(key, path.structure, num)
    noised = jax.tree.map(lambda z, e: alpha * z + sigma * e, clean, noise)
    score = eqx.filter_jit(score_particles)(path, noised, t)

    def rows(tree: Position) -> np.ndarray:
        return np.concatenate([np.asarray(x, np.float64).reshape(num, -1) for x in jax.tree.leaves(tree)], axis=1)

    predicted, target = float(sigma) * rows(score), -rows(noise)
    products, squares = (predicted * target).sum(axis=1), (predicted**2).sum(axis=1)
    slope = products.mean() / squares.mean()
    residual = products - slope * squares
    return float(slope), float(residual.std() / squares.mean() / np.sqrt(num))


def _check_against_data(path: AbstractPerturbedScore, data: Position, key: Array) -> None:
    data = jax.tree.map(lambda x, leaf: jnp.asarray(x[:_MOST_POINTS], leaf.dtype), data, path.structure)
    _same_structure(jax.tree.map(lambda x: x[0], data), path.structure, "one point of the data", "the structure")
    clean = jax.vmap(path.frame.to_standard)(data)
    mean, variance = path.data_moments()
    for z, m, v in zip(*map(jax.tree.leaves, (clean, mean, variance)), strict=True):
        off = np.max(np.abs(np.asarray((z.mean(axis=0) - m) / jnp.sqrt(v))))
        ratio = np.max(np.abs(np.log(np.asarray(z.std(axis=0) / jnp.sqrt(v)))))
        assert max(off, ratio) < _MOMENT_TOLERANCE, (
            "the data do not have the mean and the scale that the path assumes for them in its standard coordinates "
            f"(mean off by {off:.2g} standard deviations, sd off by a factor {np.exp(ratio):.2g}). Pass the "
            "standardisation that was used in training as `location` and `scale`."
        )
    low, high = (float(x) for x in path.log_snr_range)
    scale = float(np.sqrt(np.mean([float(jnp.mean(v)) for v in jax.tree.leaves(variance)])))
    levels = [s * scale for s in _LEVELS if low <= -np.log(s * scale) <= high]
    fits = {s: noise_slope(path, data, s, key=jax.random.fold_in(key, k)) for k, s in enumerate(levels)}
    wrong = {s: fit for s, fit in fits.items() if abs(fit[0] - 1) > max(_SLOPE_TOLERANCE, 5 * fit[1])}
    if not wrong:
        return
    slopes = np.array([slope for slope, _ in fits.values()])
    table = ", ".join(f"{slope:.3g} +- {error:.2g} at sigma/alpha = {s:.3g}" for s, (slope, error) in fits.items())
    if np.all(slopes < 0):
        cause = "The sign is wrong: a score points to higher density (a network that returns noise is its negative)"
    elif np.ptp(np.log(slopes.clip(1e-6))) < 0.2:
        cause = f"The scale is wrong: divide the score by {1 / slopes.mean():.3g}"
    else:
        cause = (
            "The error changes with the noise level: check `prediction`, `time`, the process and its constants, and "
            "whether the network wants standardised data"
        )
    raise AssertionError(
        f"the score does not predict the noise in noised data: slopes {table}, but 1 is right. {cause}."
    )


def check_sampler(
    sampler: AbstractSampler | AbstractParticleSampler[Any], target: AbstractScore | AbstractScorePath, *, key: Array
) -> None:
    """Check that a sampler keeps the contract on a target: shapes, dtypes, finite draws, and keys.

    This says nothing about the law of the draws: test that against a closed form.

    Arguments:
        sampler: the sampler.
        target: a score or path that it can sample, which knows its own starts.
        key: random key.

    Raises:
        AssertionError: if the contract is broken; the message says where.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
        >>> check_sampler(ss.ReverseSDE(num_steps=5), path, key=jax.random.key(0))
    """
    settings: dict[str, Any] = {"num_samples": 6, "num_chains": 2, "num_warmup": 20, "progress": False}
    draws = sample(target, sampler, key=key, **settings)
    shape = (2, 6) if isinstance(sampler, AbstractSampler) else (1, 12)
    for leaf, want in zip(jax.tree.leaves(draws.position), jax.tree.leaves(target.structure), strict=True):
        assert leaf.shape == (*shape, *want.shape), f"draws have shape {leaf.shape}, not {(*shape, *want.shape)}"
        assert leaf.dtype == want.dtype, f"draws have dtype {leaf.dtype}, but positions have {want.dtype}"
    _assert_finite(draws.position, "the draws", "at some places")
    again = sample(target, sampler, key=key, **settings)
    for a, b in zip(jax.tree.leaves(draws.position), jax.tree.leaves(again.position), strict=True):
        assert np.array_equal(a, b), "the same key gave other draws"
    other = sample(target, sampler, key=jax.random.fold_in(key, 1), **settings)
    pairs = zip(jax.tree.leaves(draws.position), jax.tree.leaves(other.position), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs), "another key gave the same draws"
    assert draws.nfe > 0, f"the sampler reports {draws.nfe} score evaluations per draw"


def _same_structure(value: Any, like: Any, what: str, of: str) -> None:
    got, want = structure_of(value), structure_of(like)
    assert got == want, f"{what} must look like {of}: {want}, got {got}"


def _assert_finite(tree: Any, what: str, where: str) -> None:
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree)), f"{what} is not finite {where}"


def _assert_close(got: Any, want: Any, what: str, of: str, tolerance: float = 1e-4) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = max(np.abs(b).max(initial=0.0), 1e-3)
        worst = np.abs(a - b).max(initial=0.0) / scale
        assert worst <= tolerance, f"{what} differs from {of}: by {worst:.2g} of its largest entry"

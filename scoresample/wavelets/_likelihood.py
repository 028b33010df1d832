"""Couplings of the coarsest field's energy by maximum likelihood."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import logsumexp

from scoresample.wavelets._field_kernels import neighbours
from scoresample.wavelets._score_matching import Solve, Terms

_PROPOSALS, _CENTRES, _INFLATION, _FEWEST_EFFECTIVE = 50_000, 1000, 1.5, 500
_NEWTON_STEPS, _RIDGE, _TOLERANCE, _MOST_MISMATCH = 100, 1e-5, 1e-4, 1e-2
_BLOCK = 5000
_TINY = 1e-10


def likeliest(fields: Array, terms: Terms, seed: int) -> Solve:
    """Maximum likelihood by Newton's method; the constant by importance sampling.

    Score matching hardly sees what share a mode has. This does, and in so few dimensions the constant is no obstacle.
    A third of the proposals are normal, wider than the fields; a third are of independent sites, for an energy may not
    have modes where no field is; the others are normal around some of the fields, as wide as these are apart, so that
    no mode that they know is left out.

    Arguments:
        fields: (n, *shape).
        terms: of the energy.
        seed: of the proposals.

    Returns:
        Terms that are kept, couplings that are held -> couplings; None where the proposals do not cover the law, or
        Newton's method stops early.
    """
    scaled = terms.scaled(fields)
    proposals, log_proposal = _proposals(np.asarray(scaled, np.float64).reshape(len(fields), -1), terms.even, seed)
    both = jnp.concatenate([scaled, jnp.asarray(proposals, fields.dtype).reshape(-1, *fields.shape[1:])])
    values = np.asarray(eqx.filter_jit(jax.vmap(terms.of))(both), np.float64)
    observed, drawn = values[: len(fields)].mean(axis=0), values[len(fields) :]
    size = np.maximum(drawn.std(axis=0), 1e-12)
    drawn = (drawn - observed) / size

    def solve(kept: np.ndarray, held: np.ndarray) -> np.ndarray | None:
        given = -drawn @ (size * held) - log_proposal
        values, found = drawn[:, kept], np.zeros(int(kept.sum()))
        # The start is a normal law: the first term is half the sum of squares.
        found[0] = size[0]

        def loss(c: np.ndarray) -> tuple[float, np.ndarray]:
            logits = given - values @ c
            shifted = np.exp(logits - logits.max())
            ridge = 0.5 * _RIDGE * float(c @ c)
            return float(np.log(shifted.sum()) + logits.max()) + ridge, shifted / shifted.sum()

        value, weights = loss(found)
        for _ in range(_NEWTON_STEPS):
            mean = weights @ values
            uphill = mean - _RIDGE * found
            if np.max(np.abs(uphill)) < _TOLERANCE:
                break
            curvature = (values * weights[:, None]).T @ values - np.outer(mean, mean) + _RIDGE * np.eye(len(found))
            move, length = np.linalg.solve(curvature, uphill), 1.0
            while not loss(found + length * move)[0] <= value and length > 1e-6:
                length /= 2
            if length <= 1e-6:
                break
            found = found + length * move
            value, weights = loss(found)
        close, covered = np.max(np.abs(weights @ values)) <= _MOST_MISMATCH, 1 / np.sum(weights**2) >= _FEWEST_EFFECTIVE
        if not (close and covered):
            return None
        couplings = held.copy()
        couplings[kept] = found / size[kept]
        return couplings

    return solve


def _proposals(points: np.ndarray, even: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the mixture, and its log density up to a constant; symmetric where the law is."""
    rng = np.random.default_rng(seed)
    dimension = points.shape[1]
    centres = rng.permutation(points)[:_CENTRES]
    mean = np.zeros(dimension) if even else points.mean(axis=0)
    spread = points - mean
    apart = centres - centres[neighbours(centres)]
    if even:
        centres = np.concatenate([centres, -centres])
    wide = _root(_INFLATION * spread.T @ spread / len(points))
    # Where the nearest fields are the same ones twice, or lie on a line, the wide law says what is small.
    narrow = _root(apart.T @ apart / len(apart) + 1e-4 * wide @ wide.T)
    loose = np.sqrt(_INFLATION * np.mean(spread**2)) * np.eye(dimension)
    noise = rng.normal(size=(3, _PROPOSALS // 3, dimension))
    around = centres[rng.integers(len(centres), size=noise.shape[1])]
    draws = np.concatenate([mean + noise[0] @ wide.T, mean + noise[1] @ loose.T, around + noise[2] @ narrow.T])
    parts = [_log_normal(draws, mean, wide), _log_normal(draws, mean, loose), _log_kernels(draws, centres, narrow)]
    return draws, np.asarray(logsumexp(parts, axis=0))


def _log_normal(x: np.ndarray, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Of N(mean, root root^T), up to a constant that all have."""
    return -0.5 * np.sum(np.linalg.solve(root, (x - mean).T) ** 2, axis=0) - np.log(np.diag(root)).sum()


def _log_kernels(x: np.ndarray, centres: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Of the mixture of normal laws around the centres, up to the same constant."""
    near, at = np.linalg.solve(root, centres.T).T, np.linalg.solve(root, x.T).T
    blocks = []
    for block in np.split(at, range(_BLOCK, len(at), _BLOCK)):
        logits = block @ near.T - 0.5 * np.sum(near**2, axis=1) - 0.5 * np.sum(block**2, axis=1, keepdims=True)
        blocks.append(np.asarray(logsumexp(logits, axis=1)))
    return np.concatenate(blocks) - np.log(len(centres)) - np.log(np.diag(root)).sum()


def _root(covariance: np.ndarray) -> np.ndarray:
    return np.linalg.cholesky(covariance + _TINY * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))

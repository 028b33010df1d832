"""Fields with known scores: the part along the finest details is their conditional score given the coarser field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss

SHAPE = (4, 4)


def fields_and_scores(num: int) -> tuple[np.ndarray, np.ndarray, ss.LatticePhi4]:
    """A Gaussian lattice model: kappa with lam = 0 has the covariance ``H^-1`` with the score ``-H phi``."""
    target = ss.LatticePhi4(SHAPE, 0.15, 0.0)
    hessian = -np.asarray(jax.jacfwd(lambda x: target(x.reshape(SHAPE)).ravel())(jnp.zeros(16)), np.float64)
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    fields = np.random.default_rng(0).normal(size=(num, 16)) @ root.T
    fields = fields.reshape(-1, *SHAPE).astype(np.float32)
    return fields, np.asarray(jax.vmap(target)(jnp.asarray(fields))), target


def finest_error(path: ss.WaveletPath, fields: np.ndarray, target: ss.LatticePhi4) -> float:
    """Relative error of the finest stage's score at its least noise, against the details of the target's score."""
    low, details = path.transform.split(jnp.asarray(fields))
    t = path.stages[-1].process.time(jnp.asarray(-np.log(0.006), jnp.float32))
    found = jax.vmap(lambda d, x: path.stages[-1].given(x)(d, t))(details, low)
    exact = path.transform.split(jax.vmap(target)(jnp.asarray(fields)))[1]
    return float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2)))


def test_known_scores_teach_the_finest_scale_sooner() -> None:
    fields, scores, target = fields_and_scores(1500)
    errors = {}
    for name, known in (("without", None), ("with", scores)):
        path = ss.fit_wavelet(
            fields[:1000], scores=None if known is None else known[:1000], key=jax.random.key(0), wavelet="haar",
            levels=1, periodic=True, width=16, blocks=1, num_epochs=[1, 25], batch_size=50, learning_rate=4e-3,
            sigma_range=(0.005, 10.0),
        )  # fmt: skip
        errors[name] = finest_error(path, fields[1000:], target)
    assert errors["with"] < 0.5 * errors["without"]


def test_scores_that_do_not_fit_are_refused() -> None:
    fields, scores, _ = fields_and_scores(20)
    with pytest.raises(ValueError, match=r"`scores` must be finite and shaped like the fields, \(20, 4, 4\)"):
        ss.fit_wavelet(fields, scores=scores[:, :3], key=jax.random.key(0), levels=1)
    with pytest.raises(ValueError, match="`scores` must be finite"):
        ss.fit_wavelet(fields, scores=scores * np.nan, key=jax.random.key(0), levels=1)
    with pytest.raises(ValueError, match="`scores` are targets of the denoising loss"):
        ss.fit_wavelet(fields, scores=scores, loss="sliced", key=jax.random.key(0), levels=1)
    with pytest.raises(ValueError, match="`scores` are taken by the finest scale alone"):
        ss.fit_wavelet(fields, scores=scores, shared=True, key=jax.random.key(0), levels=1)

"""Fields learned scale by scale: against the exact conditional scores of Gaussian fields, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.nn import ResidualConv, ResidualMLP
from scoresample.wavelets import WaveletPath, perturb_wavelets

SIDE, NUM = 8, 4000
LEVELS = (0.3, 1.0, 3.0)
"""Noise sigma/alpha at which scores are compared."""
SETTINGS: dict[str, Any] = {
    "wavelet": "haar", "periodic": True, "width": 16, "blocks": 1, "num_epochs": (8, 8), "batch_size": 64,
    "learning_rate": 5e-3, "sigma_range": (0.1, 10.0),
}  # fmt: skip
SMALL: dict[str, Any] = {"width": 8, "blocks": 1, "num_epochs": 1, "batch_size": 20}


def gaussian_field(side: int = SIDE) -> ss.GaussianField:
    return ss.GaussianField(ss.power_law_spectrum((side, side), 2.0))


def gaussian_draws(num: int = NUM, side: int = SIDE) -> np.ndarray:
    """Draws of the field, by its spectrum alone."""
    spectrum = np.asarray(gaussian_field(side).spectrum, np.float64)
    white = np.random.default_rng(0).normal(size=(num, side, side))
    return np.fft.ifft2(np.fft.fft2(white) * np.sqrt(spectrum)).real


@eqx.filter_jit
def denoised(stage: Any, x: Array, low: Array | None, sigma: Array) -> Array:
    """What a stage takes for the clean parts."""
    t = stage.process.time(-jnp.log(sigma))

    def one(x: Array, low: Array | None) -> Array:
        path = stage if low is None else stage.given(low)
        return path.denoise(stage.process.alpha(t) * x, t)

    return jax.vmap(one)(x, low)


def errors(learned: WaveletPath, exact: WaveletPath, fields: np.ndarray) -> tuple[list[float], list[float]]:
    """Relative L2 errors of the noise's prediction, by stage, over all levels of noise; and those of white noise.

    The noise is in units of the part's own standard deviation, as in the training; scores are compared in these units.
    White noise of unit variance is what a network stands for that has learned nothing.
    """
    found, white = [], []
    parts = jax.vmap(learned.parts)(jnp.asarray(fields, float))
    for index, (known, clean) in enumerate(parts):
        missed, missed_white, total = 0.0, 0.0, 0.0
        for number, sigma in enumerate(LEVELS):
            noise = jax.random.normal(jax.random.key(number), clean.shape)
            own, other = learned.stages[index], exact.stages[index]
            scale = jnp.broadcast_to(own.frame.scale, clean.shape[1:])
            wanted_scale = jnp.broadcast_to(other.frame.scale, clean.shape[1:])
            np.testing.assert_allclose(scale, wanted_scale, rtol=0.05)
            x = clean + sigma * scale * noise
            got, want = (
                (x - denoised(stage, x, known, jnp.asarray(sigma, float))) / (sigma * scale) for stage in (own, other)
            )
            missed += float(jnp.mean((got - want) ** 2))
            missed_white += float(jnp.mean((sigma / (1 + sigma**2) * x / scale - want) ** 2))
            total += float(jnp.mean(want**2))
        found.append(float(np.sqrt(missed / total)))
        white.append(float(np.sqrt(missed_white / total)))
    return found, white


@pytest.mark.parametrize("shared", [False, True])
def test_learned_conditional_scores_are_those_of_a_gaussian_field(shared: bool) -> None:
    path = ss.fit_wavelet(gaussian_draws(), key=jax.random.key(1), levels=1, shared=shared, **SETTINGS)
    exact = perturb_wavelets(gaussian_field(), ss.VP(), wavelet="haar", levels=1)
    assert path.stage_names() == exact.stage_names()
    found, white = errors(path, exact, gaussian_draws(500))
    assert max(found) < 0.08 < 0.5 * min(white), (found, white)


def test_lines_and_networks_of_your_own() -> None:
    """Fields on a line; and a function of the shapes makes the networks."""
    draws = np.random.default_rng(0).normal(size=(100, 16))
    asked = []

    def make(shape: tuple[int, ...], known: tuple[int, ...] | None, key: Array) -> Any:
        asked.append((shape, known))
        if known is None:
            return ResidualMLP(shape[0], width=8, depth=1, key=key)
        return ResidualConv(1, width=8, blocks=1, channels=shape[0], condition_channels=1, key=key)

    path = ss.fit_wavelet(draws, key=jax.random.key(0), levels=2, network=make, num_epochs=(1, 2, 3), batch_size=20)
    assert set(asked) == {((4,), None), ((1, 4), (4,)), ((1, 8), (8,))}
    assert [len(stage.record.train_loss) for stage in path.stages] == [1, 2, 3]
    drawn = ss.sample(path, ss.ReverseSDE(num_steps=2), key=jax.random.key(1), num_chains=1, num_samples=4)
    assert drawn.position.shape == (1, 4, 16)
    shared = ss.fit_wavelet(draws, key=jax.random.key(0), levels=2, shared=True, **SMALL)
    assert shared.stage_names() == path.stage_names()
    by_default = ss.fit_wavelet(draws, key=jax.random.key(0), **SMALL)
    assert by_default.transform.shapes == ((8,),)


def test_draws_are_taken_with_their_names_and_weighted_ones_are_refused() -> None:
    path = ss.perturb(gaussian_field(4), ss.VP())
    draws = ss.sample(path, ss.ReverseSDE(num_steps=2), key=jax.random.key(0), num_chains=1, num_samples=60)
    learned = ss.fit_wavelet(draws, key=jax.random.key(1), levels=1, **SMALL)
    assert learned.constrain == draws.constrain
    weighted = dataclasses.replace(draws, log_weights=jnp.zeros((1, 60)))
    with pytest.raises(ValueError, match="`fields`: these draws are weighted"):
        ss.fit_wavelet(weighted, key=jax.random.key(1), levels=1, **SMALL)


@pytest.mark.parametrize("shared", [False, True])
def test_a_finished_or_interrupted_training_goes_on(shared: bool, tmp_path: Path) -> None:
    """A lost stage is trained again, alone; all others are found, and the path is the same."""
    fields = gaussian_draws(100, 4)

    def learned(folder: Path | None) -> WaveletPath:
        return ss.fit_wavelet(fields, key=jax.random.key(0), levels=1, shared=shared, checkpoint=folder, **SMALL)

    place = tmp_path / "of" / "trainings"
    first = learned(place)
    files = sorted(place.iterdir())
    assert [file.name for file in files] == ["stage-0.safetensors", "stage-1.safetensors"]
    files[1].unlink()
    for again in (learned(place), learned(None)):
        for a, b in zip(*(jax.tree.leaves(eqx.filter(p, eqx.is_array)) for p in (first, again)), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="`checkpoint`"):
        ss.fit_wavelet(2 * fields[:90], key=jax.random.key(0), levels=1, shared=shared, checkpoint=place, **SMALL)


FIELDS = np.random.default_rng(0).normal(size=(40, 4, 4))


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        (FIELDS[:, :, :, None], {}, r"`fields` must be an array of real numbers .* got shape \(40, 4, 4, 1\)"),
        (FIELDS[:, 0, 0], {}, r"got shape \(40,\)"),
        (FIELDS + 1j, {}, "of complex128"),
        (np.where(FIELDS > 2, np.nan, FIELDS), {}, "`fields`: .* values are not finite"),
        (np.ones((40, 4, 4)), {}, "a band of details is zero in all fields"),
        (FIELDS, {"levels": 3}, "levels"),
        (FIELDS, {"num_epochs": (1, 1, 1)}, "`num_epochs` must be one number, or 2 of them, got 3"),
        (FIELDS, {"levels": 2, "num_epochs": (1, 1)}, "or 3 of them, got 2"),
        (FIELDS, {"wavelet": "bior2.2"}, "bior2.2"),
        (FIELDS, {"conditions": FIELDS}, "`conditions` cannot be chosen"),
        (FIELDS, {"standardise": "none"}, "`standardise` cannot be chosen"),
        (FIELDS, {"support": (0.0, None)}, "`support` cannot be chosen"),
        (FIELDS, {"shared": True, "network": lambda *_: None}, "`network`: the details share"),
    ],
)
def test_what_cannot_be_used_is_refused(fields: np.ndarray, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ss.fit_wavelet(fields, key=jax.random.key(0), **dict[str, Any]({"levels": 1} | settings))


def test_trees_are_refused() -> None:
    with pytest.raises(TypeError, match="`fields` must be one array"):
        ss.fit_wavelet({"a": FIELDS}, key=jax.random.key(0), levels=1)

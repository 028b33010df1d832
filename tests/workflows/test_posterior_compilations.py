"""Trainings of posteriors share compilations: the two pilots and the last one, of one posterior and of the next."""

from collections import Counter
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.training import _epoch, _fit, _regression, held_out_rows
from scoresample.workflows import _held_out_density

KEY = jax.random.key(0)


def test_the_rows_that_a_training_holds_out_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).normal(size=(150, 2)).astype(np.float32)
    seen: list[np.ndarray] = []
    fix_noise = _fit.fix_noise

    def noticed(points: Array, *others: Any) -> Any:
        seen.append(np.asarray(points))
        return fix_noise(points, *others)

    monkeypatch.setattr(_fit, "fix_noise", noticed)
    for key, share in ((KEY, 0.1), (jax.random.key(5), 0.3)):
        settings: dict[str, Any] = {"num_epochs": 1, "width": 4, "depth": 1, "progress": False}
        ss.fit_score(data, key=key, validation_fraction=share, standardise="none", **settings)
        rows = held_out_rows(key, 150, share)
        assert rows.sum() == 150 * share
        np.testing.assert_array_equal(seen[-1], data[rows])


def test_every_part_of_a_training_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: Counter[str] = Counter()
    parts: list[tuple[Any, str]] = [
        (_epoch, "_one_round"), (_regression, "_loss"), (_held_out_density, "_log_density")
    ]  # fmt: skip
    for module, name in parts:
        inner = getattr(module, name)

        def counted(*args: Any, inner: Any = inner, name: str = name, **settings: Any) -> Any:
            traces[name] += 1
            return inner(*args, **settings)

        monkeypatch.setattr(module, name, counted)

    def observe(key: Array, theta: Array) -> Array:
        return theta + jax.random.normal(key, theta.shape)

    prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    settings: dict[str, Any] = {"num_simulations": 130, "num_epochs": 33, "width": 7, "depth": 1, "progress": False}
    ss.fit_posterior(observe, prior, key=KEY, **settings)
    assert traces["_one_round"] == 1
    # The two pilots share one compilation, which traces a full batch and a remainder of it.
    assert 1 <= traces["_log_density"] <= 2
    before = dict(traces)
    ss.fit_posterior(lambda key, theta: observe(key, theta), prior, key=jax.random.key(1), **settings)
    assert traces["_one_round"] == before["_one_round"]
    assert traces["_log_density"] == before["_log_density"]
    # Outside of compiled functions it is called once a training.
    assert traces["_loss"] <= before["_loss"] + 1

"""Blocks: on several devices, many in one run, all by one program."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from tests.cases import mixture

ON_FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
import scoresample as ss

assert jax.device_count() == 4
density = ss.GaussianMixture([0.3, 0.7], jnp.array([[-2.0, 1.0], [2.0, 1.0]]), 0.3)
path = ss.perturb(density, ss.VP())
line = jax.sharding.NamedSharding(jax.make_mesh((4,), ("x",)), jax.sharding.PartitionSpec("x"))
common = {"key": jax.random.key(0), "num_samples": 30}
for target, sampler, settings in [
    (path, ss.ReverseSDE(num_steps=10), {"batch_size": 25}),  # five blocks: the last round is not full
    (path, ss.ProbabilityFlowODE(num_steps=10), {"batch_size": 30}),
    (density, ss.ULA(step_size=0.05), {"batch_size": 1, "num_warmup": 5, "num_chains": 6}),
    (
        density,
        ss.HMC(num_integration_steps=3, step_size=0.1),
        {"batch_size": 2, "num_warmup": 0, "num_chains": 6, "initial_position": jnp.zeros(2)},
    ),
]:
    one = ss.sample(target, sampler, **common, **settings)
    four = ss.sample(target, sampler, sharding=line, **common, **settings)
    listed = ss.sample(target, sampler, sharding=jax.devices(), **common, **settings)
    assert one.position.shape == four.position.shape
    np.testing.assert_allclose(one.position, four.position, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(four.position, listed.position)
    assert one.info["num_evaluations"] == four.info["num_evaluations"]
    assert one.stats.keys() == four.stats.keys()
    assert {c.name for c in one.info["checks"]} == {c.name for c in four.info["checks"]}
    print(type(sampler).__name__, np.abs(one.position - four.position).max())
equal_blocks = ss.sample(path, ss.ReverseSDE(num_steps=5), sharding=line, **common)
assert np.isfinite(equal_blocks.position).all() and equal_blocks.position.shape == (1, 120, 2)
"""


def test_four_devices_give_the_draws_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_FOUR_DEVICES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") == 4


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("sharding", [3, "gpu", []])
def test_what_is_no_sharding_is_refused(sharding: Any) -> None:
    with pytest.raises(TypeError, match=r"`sharding` must be a jax.sharding.Sharding or a list of devices"):
        ss.sample(ss.perturb(mixture(), ss.VP()), key=jax.random.key(0), num_samples=4, sharding=sharding)


def test_many_blocks_are_one_run_in_order() -> None:
    path = ss.perturb(mixture(), ss.VP())
    settings: dict[str, Any] = {"key": jax.random.key(3), "num_chains": 1, "batch_size": 16}
    sampler = ss.ReverseSDE(num_steps=5)
    short = ss.sample(path, sampler, num_samples=20, **settings)
    long = ss.sample(path, sampler, num_samples=40, **settings)
    assert long.position.shape[1] == 40
    np.testing.assert_array_equal(short.position[0], long.position[0, :20])
    assert len(np.unique(np.asarray(long.position[0, :, 0]))) == 40


def test_new_weights_keys_and_blocks_compile_nothing(compilations: Any) -> None:
    def path(gain: float) -> ss.PerturbedScore:
        return ss.PerturbedScore(
            _denoiser, ss.VP(), structure=jnp.zeros(2), prediction="denoised", time="sigma", args=(jnp.asarray(gain),)
        )

    first = [path(0.9), path(0.8)]
    settings: dict[str, Any] = {"num_chains": 1, "batch_size": 16}
    ss.sample(first[0], ss.ReverseSDE(num_steps=5), key=jax.random.key(3), num_samples=16, **settings)
    keys = jax.random.split(jax.random.key(4), 2)
    key = keys[1]
    with compilations.none_expected():
        ss.sample(first[1], ss.ReverseSDE(num_steps=5), key=key, num_samples=40, **settings)


def _denoiser(y: Any, sigma: Any, gain: Any) -> Any:
    return gain * y / (1 + sigma**2)

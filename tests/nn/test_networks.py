"""Networks and denoisers: shapes, what their parametrisations mean, and energies whose gradient is the score."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from scoresample.nn import (
    DenoiserEnsemble,
    PreconditionedDenoiser,
    PreconditionedEnergy,
    ResidualConv,
    ResidualMLP,
    UNet,
)
from scoresample.nn import parameter_count as count
from scoresample.nn._denoiser import Parametrisation
from scoresample.scores import Position

LOG_S = jnp.asarray(-0.4)


def moved(module: Any, seed: int = 0) -> Any:
    """The module with all weights moved, so that last layers of zeros hide nothing."""
    arrays, static = eqx.partition(module, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    leaves = [x + 0.3 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(tree, leaves), static)


POSITIONS: dict[str, Position] = {
    "vector": jnp.arange(3.0),
    "matrix": jnp.arange(6.0).reshape(2, 3),
    "scalar": jnp.asarray(0.4),
    "tree": {"effects": jnp.arange(4.0).reshape(2, 2), "log_scale": jnp.asarray(0.3)},
}


@pytest.mark.parametrize("name", list(POSITIONS))
@pytest.mark.parametrize("noise_level", ["film", "concatenate"])
def test_an_mlp_takes_positions_of_any_shape(name: str, noise_level: Any) -> None:
    x = POSITIONS[name]
    size = sum(leaf.size for leaf in jax.tree.leaves(x))
    network = moved(ResidualMLP(size, width=8, depth=1, noise_level=noise_level, key=jax.random.key(0)))
    apply = eqx.filter_jit(network)
    output, other = apply(x, LOG_S), apply(x, LOG_S + 0.5)
    assert jax.tree.map(jnp.shape, output) == jax.tree.map(jnp.shape, x)
    assert all(not np.allclose(a, b) for a, b in zip(jax.tree.leaves(output), jax.tree.leaves(other), strict=True))


def test_an_untrained_network_gives_zeros() -> None:
    np.testing.assert_array_equal(ResidualMLP(3, width=8, depth=1, key=jax.random.key(0))(jnp.ones(3), LOG_S), 0.0)
    np.testing.assert_array_equal(
        UNet((4, 4), width=4, num_levels=1, key=jax.random.key(0))(jnp.ones((4, 4)), LOG_S), 0
    )


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((8,), {}), ((4, 4, 4), {}), ((3, 8, 4), {"channels": True}), ((8, 8), {"periodic": True})],
)
def test_a_unet_keeps_the_shape(shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    network = moved(UNet(shape, width=4, num_levels=2 if min(shape[-2:]) > 4 else 1, **settings, key=jax.random.key(0)))
    output = eqx.filter_jit(network)(jnp.ones(shape), LOG_S)
    assert output.shape == shape
    assert np.ptp(output) > 0 or settings.get("periodic")
    tree = {"field": jax.ShapeDtypeStruct(shape, output.dtype)}
    assert eqx.filter_eval_shape(network, tree, LOG_S)["field"].shape == shape


def test_a_periodic_unet_knows_no_place() -> None:
    """Shifts by a cell of the coarsest level shift the output of a periodic network, and of no other."""
    x = jax.random.normal(jax.random.key(1), (8, 8))
    for periodic in (True, False):
        network = eqx.filter_jit(moved(UNet((8, 8), width=4, num_levels=2, periodic=periodic, key=jax.random.key(0))))
        shifted = jnp.roll(network(x, LOG_S), 4, axis=1)
        again = network(jnp.roll(x, 4, axis=1), LOG_S)
        assert (np.abs(shifted - again).max() < 1e-4 * np.abs(again).max()) == periodic


def channels_first(network: UNet, x: Array, log_sigma: Array) -> Array:
    """What a U-Net gives, by Equinox's own layers."""

    def block(layers: Any, hidden: Array) -> Array:
        for layer in layers:
            inner = layer.first(jax.nn.silu(layer.norm(hidden)))
            gain, shift = jnp.split(layer.modulation(features).reshape(-1, *(1,) * (hidden.ndim - 1)), 2)
            inner = layer.second(jax.nn.silu((1 + gain) * inner + shift))
            hidden = inner + (hidden if layer.skip is None else layer.skip(hidden))
        return hidden

    features = jax.nn.silu(network.embed(network.features(log_sigma)))
    hidden, known = network.lift(x if network.channels else x[None]), []
    for row, halve in zip(network.down, network.halve, strict=True):
        known.append(block(row, hidden))
        hidden = halve(known[-1])
    hidden = block(network.middle, hidden)
    for row, narrow in zip(reversed(network.up), reversed(network.narrow), strict=True):
        for axis in range(1, hidden.ndim):
            hidden = jnp.repeat(hidden, 2, axis=axis)
        hidden = block(row, jnp.concatenate([narrow(hidden), known.pop()]))
    output = network.project(jax.nn.silu(hidden))
    return output if network.channels else output[0]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((8,), {}), ((4, 4, 2), {}), ((3, 4, 8), {"channels": True}), ((4, 8), {"periodic": True})],
)
def test_convolutions_are_those_of_equinox_in_value_and_derivatives(
    shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    """Values, both modes of differentiation, gradients of weights, and gradients of gradients."""
    with jax.enable_x64(True):
        network = moved(UNet(shape, width=4, num_levels=1, **settings, key=jax.random.key(0)))
        x, v = (jax.random.normal(jax.random.key(seed), shape) for seed in (1, 2))
        log_s = jnp.asarray(-0.4)

        def everything(apply: Any) -> Any:
            def loss(network: Any, x: Array) -> Array:
                return jnp.sum(jnp.sin(apply(network, x, log_s)))

            value, along = jax.jvp(lambda x: apply(network, x, log_s), (x,), (v,))
            of_x = jax.grad(loss, argnums=1)
            of_weights = eqx.filter_grad(lambda n: jnp.sum(of_x(n, x) * v) + loss(n, x))(network)
            batched = jax.vmap(lambda x: apply(network, x, log_s))(jnp.stack([x, v]))
            return value, along, of_x(network, x), eqx.filter(of_weights, eqx.is_array), batched

        got, want = (jax.tree.leaves(eqx.filter_jit(everything)(f)) for f in (lambda n, *a: n(*a), channels_first))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * max(np.abs(b).max(), 1.0))


def test_local_convolutions_are_those_of_equinox_at_every_place_and_size() -> None:
    """Values by Equinox's own layers; on periodic fields shifts by a site shift the output; the scale is told."""
    settings: dict[str, Any] = {"width": 4, "blocks": 1, "channels": 3, "condition_channels": 1, "num_scales": 2}
    for periodic in (True, False):
        network = moved(ResidualConv(2, **settings, periodic=periodic, key=jax.random.key(0)))
        apply = eqx.filter_jit(network)
        for shape in ((4, 6), (8, 2)):
            x, low = (jax.random.normal(jax.random.key(seed), (*axes, *shape)) for seed, axes in ((1, (3,)), (2, ())))
            output = apply(x, LOG_S, low, 1)
            assert output.shape == x.shape
            assert not np.allclose(output, apply(x, LOG_S, low, 0))
            features = jnp.concatenate([network.features(LOG_S), network.scales[1]])
            features = jax.nn.silu(network.embed(features))
            hidden = network.lift(jnp.concatenate([x, low[None]]))
            for layer in network.rows:
                inner = layer.first(jax.nn.silu(layer.norm(hidden)))
                gain, shift = jnp.split(layer.modulation(features).reshape(-1, 1, 1), 2)
                hidden = hidden + layer.second(jax.nn.silu((1 + gain) * inner + shift))
            wanted = network.project(jax.nn.silu(hidden))
            np.testing.assert_allclose(output, wanted, atol=1e-5 * np.abs(wanted).max())
            again = apply(jnp.roll(x, 1, axis=1), LOG_S, jnp.roll(low, 1, axis=0), 1)
            close = np.abs(jnp.roll(output, 1, axis=1) - again).max() < 1e-4 * np.abs(again).max()
            assert close == periodic
    bare = ResidualConv(1, width=4, blocks=1, key=jax.random.key(0))
    assert bare(jnp.ones(6), LOG_S).shape == (6,)
    for wrong in ((jnp.ones((4, 6)),), (jnp.ones((3, 4, 6)), LOG_S), (jnp.ones((3, 4, 6)), LOG_S, jnp.ones((4, 4)))):
        with pytest.raises(ValueError, match="`x`, and the condition where there is one, must have 2 axes of space"):
            network(wrong[0], LOG_S, *wrong[2:])
    for name in ("width", "blocks", "channels"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
            ResidualConv(2, **dict[str, Any](settings | {name: 0}), key=jax.random.key(0))
    with pytest.raises(ValueError, match="`num_axes` must be 1, 2 or 3"):
        ResidualConv(4, key=jax.random.key(0))


def test_networks_are_told_a_condition() -> None:
    """Another condition gives another output; one of another size is refused."""
    key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), (4, 4))
    told = {"a": jnp.arange(3.0), "b": jnp.asarray(2.0)}
    for noise_level in ("film", "concatenate"):
        mlp = moved(ResidualMLP(16, width=8, depth=1, noise_level=noise_level, condition_size=4, key=key))
        zeros = jax.tree.map(jnp.zeros_like, told)
        assert mlp(x, LOG_S, told).shape == x.shape
        assert not np.allclose(mlp(x, LOG_S, zeros), mlp(x, LOG_S, told))
        with pytest.raises(ValueError, match=r"`condition` has 0 numbers, but this network takes 4"):
            mlp(x, LOG_S)
    for shape, settings in (((4, 4), {}), ((3, 4, 4), {}), ((4, 4), {"channels": True})):
        own = (2, 4, 4) if settings else (4, 4)
        network = moved(UNet(own, width=4, num_levels=1, condition_shape=shape, **settings, key=key))
        x = jax.random.normal(jax.random.key(1), own)
        outputs = [network(x, LOG_S, {"field": jnp.full(shape, level)}) for level in (0.0, 1.0)]
        assert outputs[0].shape == own
        assert not np.allclose(*outputs)
        with pytest.raises(ValueError, match="`condition` must be one array of shape"):
            network(x, LOG_S, jnp.ones((8, 8)))
    with pytest.raises(ValueError, match="`condition` must be None for this network"):
        UNet((4, 4), width=4, num_levels=1, key=key)(jnp.ones((4, 4)), LOG_S, jnp.ones((4, 4)))


def test_sizes_are_checked() -> None:
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"`shape`: the axes \(6, 8\) must be multiples of 4"):
        UNet((6, 8), num_levels=2, key=key)
    with pytest.raises(ValueError, match="one to three axes"):
        UNet((3,), channels=True, key=key)
    with pytest.raises(ValueError, match=r"`condition_shape` must be the space \(4, 4\)"):
        UNet((4, 4), num_levels=1, condition_shape=(2, 2), key=key)
    with pytest.raises(ValueError, match="`condition_size` must be at least 1"):
        ResidualMLP(2, condition_size=0, key=key)
    with pytest.raises(ValueError, match="`width` must be at least 1"):
        ResidualMLP(2, width=0, key=key)
    with pytest.raises(ValueError, match="`x` must be one array of shape"):
        UNet((4, 4), width=4, num_levels=1, key=key)(jnp.ones((8, 8)), LOG_S)


PARAMETRISATIONS: tuple[Parametrisation, ...] = ("edm", "velocity", "noise", "score")


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("s", [0.05, 1.0, 7.0])
def test_the_exact_output_of_each_parametrisation_gives_the_exact_denoiser(
    parametrisation: Parametrisation, s: float
) -> None:
    """For Gaussian data of variance v: D = v y/(v + s^2), and what the network should say is known in closed form."""
    v = 1.7
    alpha, sigma = 1 / np.sqrt(1 + s**2), s / np.sqrt(1 + s**2)

    def network(x: Array, log_s: Array) -> Array:
        y = x / alpha
        clean, noise = v * y / (v + s**2), s * y / (v + s**2)
        return {
            "edm": sigma * clean - alpha * noise,
            "velocity": alpha * noise - sigma * clean,
            "noise": noise,
            "score": -x / (alpha**2 * v + sigma**2),
        }[parametrisation]

    denoiser = PreconditionedDenoiser(network, parametrisation)
    y, level = jnp.array([0.3, -2.0]), jnp.asarray(s)
    np.testing.assert_allclose(denoiser(y, level), v * y / (v + s**2), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(denoiser.score(y, level), -y / (v + s**2), rtol=1e-4, atol=1e-5)


def test_score_and_denoiser_agree() -> None:
    y, s = jnp.array([0.3, -2.0]), jnp.asarray(0.8)
    for parametrisation in PARAMETRISATIONS:
        denoiser = PreconditionedDenoiser(
            moved(ResidualMLP(2, width=8, depth=1, key=jax.random.key(0))), parametrisation
        )
        np.testing.assert_allclose(denoiser.score(y, s), (denoiser(y, s) - y) / s**2, rtol=1e-4)
    with pytest.raises(ValueError, match="An energy is made by PreconditionedEnergy"):
        PreconditionedDenoiser(lambda x, u: x, "energy")


@pytest.mark.parametrize("outputs", [1, None])
def test_an_energy_is_a_log_density_and_its_gradient(outputs: int | None) -> None:
    energy = PreconditionedEnergy(moved(ResidualMLP(2, width=8, depth=1, outputs=outputs, key=jax.random.key(0))))
    y, s = jnp.array([0.3, -2.0]), jnp.asarray(0.8)
    step = 1e-2
    slopes = [
        (energy.logdensity(y + step * e, s) - energy.logdensity(y - step * e, s)) / (2 * step) for e in jnp.eye(2)
    ]
    np.testing.assert_allclose(energy.score(y, s), np.array(slopes), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(energy(y, s), y + s**2 * energy.score(y, s), rtol=1e-5)
    jacobian = jax.jacfwd(lambda y: energy.score(y, s))(y)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-5)


def test_an_untrained_energy_is_a_normalised_gaussian() -> None:
    energy = PreconditionedEnergy(ResidualMLP(2, width=8, depth=1, outputs=1, key=jax.random.key(0)))
    s = jnp.asarray(0.8)
    grid = jnp.linspace(-8, 8, 101)
    points = jnp.stack(jnp.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    total = jnp.exp(jax.vmap(lambda y: energy.logdensity(y, s))(points)).sum() * (grid[1] - grid[0]) ** 2
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    def make(key: Array) -> PreconditionedDenoiser:
        return PreconditionedDenoiser(ResidualMLP(2, width=8, depth=1, key=key))

    stacked = moved(eqx.filter_vmap(make)(jax.random.split(jax.random.key(0), 3)))
    ensemble = DenoiserEnsemble(stacked, 3)
    y, s = jnp.array([0.3, -2.0]), jnp.asarray(0.8)
    each = np.stack([ensemble.member(i)(y, s) for i in range(3)])
    np.testing.assert_allclose(ensemble(y, s), each.mean(axis=0), rtol=1e-5)
    spread = np.sqrt(np.mean(((each - each.mean(axis=0)) / 0.8) ** 2))
    assert float(ensemble.spread(y, s)) == pytest.approx(spread, rel=1e-4)
    assert spread > 0.1
    assert count(ensemble) == 3 * count(ensemble.member(0))

"""A network trained elsewhere to predict noise, as an Equinox module and as plain arrays; wrong wrappings are caught.

Run it as `python examples/bring_your_own_network.py [--quick]`.
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import scoresample as ss
from scoresample.testing import check_path


def train_elsewhere(data, num_steps, key):
    """Stands for somebody else's training: predict the noise at one of 1,000 levels, on standardised data."""
    net, vp = eqx.nn.MLP(3, 2, 64, 3, jax.nn.silu, key=key), ss.VP()
    adam = optax.adam(optax.cosine_decay_schedule(5e-3, num_steps))

    @eqx.filter_jit
    def step(net, state, keys):
        index, noise = jax.random.randint(keys[0], (256, 1), 0, 1000), jax.random.normal(keys[1], (256, 2))
        noised = vp.alpha(index / 999) * jax.random.choice(keys[2], data, (256,)) + vp.sigma(index / 999) * noise
        inputs = jnp.hstack([noised, index / 999])
        gradient = eqx.filter_grad(lambda net: jnp.mean((jax.vmap(net)(inputs) - noise) ** 2))(net)
        updates, state = adam.update(gradient, state)
        return eqx.apply_updates(net, updates), state

    state = adam.init(eqx.filter(net, eqx.is_array))
    for keys in jax.random.split(key, (num_steps, 3)):
        net, state = step(net, state, keys)
    return net


def main(quick: bool) -> None:
    key_data, key_train, key_draw, key_check = jax.random.split(jax.random.key(0), 4)
    x, y = jax.random.normal(key_data, (2, 4000))
    data = jnp.stack([50 + 10 * x, 5 * x**2 + 2 * y], axis=1)  # a bent ridge
    mean, sd = data.mean(axis=0), data.std(axis=0)
    net = train_elsewhere((data - mean) / sd, 2000 if quick else 10_000, key_train)

    # --8<-- [start:equinox]
    settings = {"prediction": "noise", "time": "index", "num_levels": 1000, "structure": data[0]}
    settings |= {"location": mean, "scale": sd, "log_snr_range": (-4.0, 3.5)}
    mine = ss.PerturbedScore(lambda z, index: net(jnp.append(z, index / 999)), ss.VP(), **settings)
    check_path(mine, data, key=key_check)
    draws = ss.sample(mine, ss.ReverseSDE(), key=key_draw)
    print("data: mean", mean, "sd", sd)
    print("draws: mean", draws.position[0].mean(axis=0), "sd", draws.position[0].std(axis=0))
    # --8<-- [end:equinox]

    # --8<-- [start:plain]
    exported = [(layer.weight, layer.bias) for layer in net.layers]  # or arrays read from a file

    def plain(z, index, layers, factor=1.0):
        hidden = jnp.append(z, index / 999)
        for weight, bias in layers[:-1]:
            hidden = jax.nn.silu(weight @ hidden + bias)
        return factor * (layers[-1][0] @ hidden + layers[-1][1])

    same = ss.PerturbedScore(plain, ss.VP(), args=(exported,), **settings)
    print("the same score from plain arrays:", jnp.allclose(same(data[0], 0.3), mine(data[0], 0.3), rtol=1e-3))
    # --8<-- [end:plain]

    # --8<-- [start:wrong]
    for mistake, factor, changed in [
        ("wrong sign", -1.0, {}),
        ("wrong scale", 2.0, {}),
        ("wrong clock", 1.0, {"time": "t"}),
        ("standardisation forgotten", 1.0, {"location": None, "scale": None}),
    ]:
        args = (exported, jnp.array(factor))
        try:
            check_path(ss.PerturbedScore(plain, ss.VP(), args=args, **settings | changed), data, key=key_check)
        except AssertionError as error:
            print(f"\n{mistake}: {error}")
    # --8<-- [end:wrong]


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)

"""A score without a density inside BlackJAX and NumPyro, the shortcut that is wrong, and BlackJAX's algorithms here.

Run it as `python examples/scores_in_blackjax.py [--quick]`.
"""

import argparse

import blackjax
import jax
import jax.numpy as jnp
from blackjax.util import run_inference_algorithm
from numpyro.infer import MCMC, NUTS

import scoresample as ss


# --8<-- [start:score]
def banana_score(x):
    residual = x[1] - 0.25 * (x[0] ** 2 - 4.0)
    return jnp.stack([-x[0] / 4.0 + 0.5 * x[0] * residual, -residual])


bare = ss.Score(banana_score, structure=jnp.zeros(2))
logdensity = ss.logdensity_fn(bare, origin=jnp.array([0.0, -1.0]))
# --8<-- [end:score]


# --8<-- [start:wrong]
@jax.custom_jvp
def no_value(x):
    return 0.0


no_value.defjvp(lambda x, dx: (0.0, jnp.vdot(banana_score(*x), *dx)))
# --8<-- [end:wrong]


# --8<-- [start:blackjax]
def draw(logdensity, key, num_samples):
    key_adapt, key_run = jax.random.split(key)
    adaptation = blackjax.window_adaptation(blackjax.nuts, logdensity)
    (state, parameters), _ = adaptation.run(key_adapt, jnp.array([0.0, -1.0]), 500)
    _, draws = run_inference_algorithm(
        rng_key=key_run,
        inference_algorithm=blackjax.nuts(logdensity, **parameters),
        num_steps=num_samples,
        initial_state=state,
        transform=lambda state, info: (state.position, info.is_divergent),
    )
    return draws


# --8<-- [end:blackjax]


def main(quick: bool) -> None:
    key, key_numpyro, key_ours, key_mclmc = jax.random.split(jax.random.key(0), 4)
    num_samples = 2000 if quick else 20_000

    for name, value in {"line integral": logdensity, "constant value": no_value}.items():
        positions, divergent = draw(value, key, num_samples)
        print(f"BlackJAX's NUTS, {name}: sd {positions.std(axis=0)}, {int(divergent.sum())} divergences")
    print("true: sd [2 1.732]")

    # --8<-- [start:numpyro]
    kernel = NUTS(potential_fn=lambda x: -logdensity(x))
    mcmc = MCMC(kernel, num_warmup=500, num_samples=num_samples, progress_bar=False)
    mcmc.run(key_numpyro, init_params=jnp.array([0.0, -1.0]))
    # --8<-- [end:numpyro]
    print(f"NumPyro's NUTS, line integral: sd {mcmc.get_samples().std(axis=0)}")

    # --8<-- [start:checks]
    density = ss.LineIntegralDensity(bare, origin=jnp.array([0.0, -1.0]))
    draws = ss.sample(
        density, ss.MALA(), key=key_ours, num_samples=num_samples, initial_position=jnp.array([0.0, -1.0])
    )
    for check in draws.info["checks"]:
        print(check)
    some = draws.position[0, ::100]
    print(f"quadrature error: at most {jax.vmap(density.quadrature_error)(some).max():.1e} nats")
    print(f"asymmetry: {ss.asymmetry(bare, some):.1e}")
    # --8<-- [end:checks]

    # --8<-- [start:ours]
    mclmc = ss.sample(bare, ss.MCLMC(), key=key_mclmc, num_samples=num_samples, initial_position=jnp.array([0.0, -1.0]))
    walk = ss.sample(
        density,
        ss.BlackJAX(blackjax.rmh, proposal_generator=lambda key, x: x + jax.random.normal(key, x.shape)),
        key=key_mclmc,
        num_samples=num_samples,
        initial_position=jnp.array([0.0, -1.0]),
    )
    # --8<-- [end:ours]
    print(ss.compare({"MALA, line integral": draws, "MCLMC, score only": mclmc, "random walk, line integral": walk}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    main(parser.parse_args().quick)

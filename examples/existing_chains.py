"""Chains that were drawn elsewhere, beside ours: NumPyro's MCMC, BlackJAX, and any tree that ArviZ reads.

A straight line through noisy points, with an unknown noise scale. Run it as
`python examples/existing_chains.py [--quick] [--out FILE]`.
"""

import argparse

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from blackjax.util import run_inference_algorithm
from numpyro.infer import MCMC, NUTS

import scoresample as ss


def model(x, y):
    offset = numpyro.sample("offset", dist.Normal(0.0, 5.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 5.0))
    noise = numpyro.sample("noise", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(offset + slope * x, noise), obs=y)


def gibbs_sampler(x, y, num_chains, num_draws):
    """Some program of your own, in NumPy: a Gibbs sampler with a random-walk step for the noise."""
    rng = np.random.default_rng(0)
    x, y = np.asarray(x, float), np.asarray(y, float)
    design = np.stack([np.ones_like(x), x], axis=1)
    sites = {name: np.zeros((num_chains, num_draws)) for name in ("offset", "slope", "noise")}

    def log_density_of_noise(noise, residuals):
        return -len(y) * np.log(noise) - np.sum(residuals**2) / (2 * noise**2) - noise**2 / 8

    for chain in range(num_chains):
        noise = 1.0 + rng.random()
        for draw in range(-200, num_draws):
            precision = design.T @ design / noise**2 + np.eye(2) / 25
            mean = np.linalg.solve(precision, design.T @ y / noise**2)
            line = mean + np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=2))
            residuals = y - design @ line
            for _ in range(5):
                proposal = noise * np.exp(0.4 * rng.normal())
                ratio = log_density_of_noise(proposal, residuals) - log_density_of_noise(noise, residuals)
                if np.log(rng.random()) < ratio + np.log(proposal / noise):
                    noise = proposal
            if draw >= 0:
                for name, value in zip(sites, (*line, noise), strict=True):
                    sites[name][chain, draw] = value
    return sites


def main(quick: bool, out: str) -> None:
    num_draws = 1000 if quick else 4000
    x = jnp.linspace(-1.0, 1.0, 20)
    y = 0.5 + 2.0 * x + 0.7 * jax.random.normal(jax.random.key(1), (20,))
    key_ours, key_numpyro, key_blackjax = jax.random.split(jax.random.key(0), 3)

    # --8<-- [start:ours]
    posterior = ss.from_numpyro(model, (x, y))
    ours = ss.sample(posterior, ss.NUTS(), key=key_ours, num_samples=num_draws)
    # --8<-- [end:ours]

    # --8<-- [start:numpyro]
    mcmc = MCMC(
        NUTS(model),
        num_warmup=500,
        num_samples=num_draws,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key_numpyro, x, y, extra_fields=("num_steps", "accept_prob", "energy", "potential_energy"))
    by_numpyro = ss.Draws.from_numpyro_mcmc(mcmc)
    # --8<-- [end:numpyro]

    # --8<-- [start:blackjax]
    algorithm = blackjax.hmc(
        posterior.logdensity, step_size=0.12, inverse_mass_matrix=jnp.ones(3), num_integration_steps=3
    )

    def one_chain(key):
        key_start, key_run = jax.random.split(key)
        start = posterior.init_position(key_start)
        _, history = run_inference_algorithm(key_run, algorithm, 500 + num_draws, initial_position=start)
        return jax.tree.map(lambda leaf: leaf[500:], history)  # the first steps are the warm-up

    states, infos = jax.vmap(one_chain)(jax.random.split(key_blackjax, 4))
    by_blackjax = ss.Draws.from_blackjax(
        states, infos, axes=("chain", "draw"), constrain=posterior.constrain, name="BlackJAX HMC"
    )
    # --8<-- [end:blackjax]

    # --8<-- [start:arviz]
    tree = az.from_dict({"posterior": gibbs_sampler(x, y, num_chains=4, num_draws=num_draws // 2)})
    by_arviz = ss.Draws.from_arviz(tree, name="Gibbs", asymptotically_exact=True)
    # --8<-- [end:arviz]

    # --8<-- [start:compare]
    runs = {"ours": ours, "NumPyro": by_numpyro, "BlackJAX": by_blackjax, "Gibbs": by_arviz}
    comparison = ss.compare(runs, reference="ours", title="A straight line")
    print(comparison)
    comparison.save(out)
    # --8<-- [end:compare]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--out", default="report/existing_chains.html", help="where to write the report")
    options = parser.parse_args()
    main(options.quick, options.out)

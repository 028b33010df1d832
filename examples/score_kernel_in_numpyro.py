"""Samplers of this package inside NumPyro's MCMC, NumPyro's Gibbs and BlackJAX's loop, on eight schools.

Run it as `python examples/score_kernel_in_numpyro.py [--quick]`.
"""

import sys

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, Gibbs

import scoresample as ss
from scoresample.interop import ScoreKernel, as_blackjax, tuned

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


# --8<-- [start:model]
def model(effects, errors):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfNormal(10.0))
    with numpyro.plate("schools", len(errors)):
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        school = numpyro.deterministic("school", mean + spread * offset)
        numpyro.sample("effect", dist.Normal(school, errors), obs=effects)


# --8<-- [end:model]


def main(quick: bool) -> None:
    steps = {"num_warmup": 100, "num_samples": 100} if quick else {"num_warmup": 1000, "num_samples": 1000}
    steps["progress_bar"] = False
    # --8<-- [start:mcmc]
    kernel = ScoreKernel(ss.Barker(), model)
    mcmc = MCMC(kernel, num_chains=4, chain_method="vectorized", **steps)
    mcmc.run(jax.random.key(0), EFFECTS, ERRORS, extra_fields=("accept_prob", "potential_energy"))
    mcmc.print_summary()
    print(az.from_numpyro(mcmc).sample_stats.data_vars)
    # --8<-- [end:mcmc]

    learn = {"num_pilot": 500, "num_epochs": 3, "width": 32, "depth": 1, "sampler": ss.HMC()} if quick else {}
    # --8<-- [start:path]
    posterior = ss.from_numpyro(model, (EFFECTS, ERRORS))
    score, _ = ss.fit_score_to_density(posterior, key=jax.random.key(1), **learn)
    kernel = ScoreKernel(ss.ReverseSDE(), model, target=score)
    mcmc = MCMC(kernel, num_warmup=0, num_samples=200, num_chains=4, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(2), EFFECTS, ERRORS)
    mcmc.print_summary()
    # --8<-- [end:path]

    if hasattr(numpyro.infer, "Gibbs"):
        # --8<-- [start:gibbs]
        blocks = [(ScoreKernel(ss.MALA(), model), ["mean", "spread"]), (ScoreKernel(ss.MALA(), model), ["offset"])]
        mcmc = MCMC(Gibbs(blocks), **steps)
        mcmc.run(jax.random.key(3), EFFECTS, ERRORS, extra_fields=("block_states.0.accept_prob",))
        mcmc.print_summary()
        # --8<-- [end:gibbs]

    num_samples = steps["num_samples"]
    # --8<-- [start:blackjax]
    mala, position = tuned(ss.MALA(), posterior, key=jax.random.key(4), num_warmup=500)
    algorithm = as_blackjax(mala, posterior)
    _, (states, info) = blackjax.util.run_inference_algorithm(
        jax.random.key(5), algorithm, num_samples, initial_position=position
    )
    sites = jax.vmap(posterior.constrain)(states.position)
    print(f"spread {sites['spread'].mean():.2f}, acceptance rate {info.acceptance_rate.mean():.2f}")
    # --8<-- [end:blackjax]


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)

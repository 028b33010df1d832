"""NumPyro models of eight posteriors of posteriordb, with their data and reference draws.

The densities are those of posteriordb's Stan models, and so are the names of what is reported: `beta[1]` of the
reference is the first entry of the site `beta`. The coordinates that the samplers move in are our own choice.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import scoresample as ss

Content = dict[str, Any]
"""What a JSON file of posteriordb holds, or the arguments of a model: arrays by name."""


def flat(name: str, support: Any = constraints.real, shape: tuple[int, ...] = ()) -> Any:
    """A latent site with constant density on its support."""
    return numpyro.sample(name, dist.ImproperUniform(support, (), shape))


def eight_schools(y: Any, sigma: Any) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    theta = numpyro.deterministic("theta", mu + tau * theta_trans)
    numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def autoregression(y: Any, lags: Any) -> None:
    """Column k of `lags` is y, k + 1 steps earlier."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def autoregression_data(data: Content) -> Content:
    y, order = np.asarray(data["y"], float), data["K"]
    return {"y": y[order:], "lags": np.column_stack([y[order - k : len(y) - k] for k in range(1, order + 1)])}


def garch(y: Any, sigma1: Any) -> None:
    """Flat on the triangle of alpha1, beta1 > 0 with alpha1 + beta1 < 1: two shares of three, uniform on a simplex."""
    mu = flat("mu")
    alpha0 = flat("alpha0", constraints.positive)
    shares: Any = numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    alpha1 = numpyro.deterministic("alpha1", shares[0])
    beta1 = numpyro.deterministic("beta1", shares[1])

    def next_variance(variance: Any, previous: Any) -> tuple[Any, Any]:
        variance = alpha0 + alpha1 * (previous - mu) ** 2 + beta1 * variance
        return variance, variance

    _, variances = jax.lax.scan(next_variance, sigma1**2, y[:-1])
    numpyro.sample("y", dist.Normal(mu, jnp.sqrt(jnp.concatenate([sigma1[None] ** 2, variances]))), obs=y)


def gaussian_process(x: Any, y: Any) -> None:
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    covariance = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + sigma * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(0.0, covariance), obs=y)


def mixture(y: Any) -> None:
    """The means' prior is normal on the cone of ordered pairs: a flat site there, times the normal densities."""
    mu = flat("mu", constraints.ordered_vector, (2,))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = dist.Categorical(jnp.stack([theta, 1 - theta]))
    numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=y)


class Design(NamedTuple):
    """A linear regression in whitened coordinates z: ``coefficients = centre + axes @ z``.

    They are standard errors around least squares. The map is affine, so a prior that is flat in the coefficients is
    flat in z. What is left of an outcome, ``y - columns @ coefficients``, is ``residual - basis @ z``: nothing large
    cancels there in single precision.
    """

    centre: Any
    axes: Any
    residual: Any
    basis: Any

    @classmethod
    def of(cls, outcome: Any, *columns: Any) -> "Design":
        """The regression of an outcome on columns, in double precision."""
        y, x = np.asarray(outcome, float), np.column_stack(columns).astype(float)
        orthonormal, triangle = np.linalg.qr(x)
        centre = np.linalg.solve(triangle, orthonormal.T @ y)
        residual = y - x @ centre
        error = np.sqrt(residual @ residual / (len(y) - x.shape[1]))
        return cls(centre, error * np.linalg.inv(triangle), residual, error * orthonormal)

    def coefficients(self, z: Any) -> Any:
        return self.centre + self.axes @ z

    def observe(self, z: Any, sigma: Any) -> None:
        numpyro.sample("residual", dist.Normal(self.basis @ z, sigma), obs=self.residual)


def kidscore(design: Design) -> None:
    z = flat("z", constraints.real_vector, (4,))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.deterministic("beta", design.coefficients(z))
    design.observe(z, sigma)


def kidscore_data(data: Content) -> Content:
    high_school, iq = np.asarray(data["mom_hs"], float), np.asarray(data["mom_iq"], float)
    return {"design": Design.of(data["kid_score"], np.ones_like(iq), high_school, iq, high_school * iq)}


def earnings(design: Design) -> None:
    z = flat("z", constraints.real_vector, (4,))
    sigma = flat("sigma", constraints.positive)
    numpyro.deterministic("beta", design.coefficients(z))
    design.observe(z, sigma)


def earnings_data(data: Content) -> Content:
    height, male = np.asarray(data["height"], float), np.asarray(data["male"], float)
    return {"design": Design.of(np.log(data["earn"]), np.ones_like(height), height, male, height * male)}


def diamonds(design: Design) -> None:
    z = flat("z", constraints.real_vector, (25,))
    coefficients = design.coefficients(z)
    intercept = numpyro.deterministic("Intercept", coefficients[0])
    b = numpyro.deterministic("b", coefficients[1:])
    numpyro.factor("b_prior", dist.Normal(0.0, 1.0).log_prob(b).sum())
    numpyro.factor("intercept_prior", dist.StudentT(3.0, 8.0, 10.0).log_prob(intercept))
    sigma = flat("sigma", constraints.positive)
    numpyro.factor("sigma_prior", dist.StudentT(3.0, 0.0, 10.0).log_prob(sigma))
    design.observe(z, sigma)


def diamonds_data(data: Content) -> Content:
    """The first column of X is constant; the others are centred."""
    x = np.asarray(data["X"], float)[:, 1:]
    return {"design": Design.of(data["Y"], np.ones(len(x)), x - x.mean(axis=0))}


def named(*names: str) -> Callable[[Content], Content]:
    """The data as they are."""
    return lambda data: {name: np.asarray(data[name], float) for name in names}


class Posterior(NamedTuple):
    """A model, and how its arguments are made of posteriordb's data."""

    folder: str
    model: Callable[..., None]
    arguments: Callable[[Content], Content]

    def score(self, posteriordb: Path) -> ss.DensityScore:
        """The posterior as a score with a density."""
        return ss.from_numpyro(self.model, model_kwargs=self.arguments(content(posteriordb / self.folder, "data")))

    def reference(self, posteriordb: Path) -> dict[str, np.ndarray]:
        """The reference draws of each parameter, chains joined."""
        chains = content(posteriordb / self.folder, "draws")
        return {name: np.concatenate([chain[name] for chain in chains]) for name in chains[0]}


MODELS = {
    "eight_schools": Posterior("eight_schools-eight_schools_noncentered", eight_schools, named("y", "sigma")),
    "arK": Posterior("arK-arK", autoregression, autoregression_data),
    "garch11": Posterior("garch-garch11", garch, named("y", "sigma1")),
    "gp_regr": Posterior("gp_pois_regr-gp_regr", gaussian_process, named("x", "y")),
    "kidscore_interaction": Posterior("kidiq-kidscore_interaction", kidscore, kidscore_data),
    "low_dim_gauss_mix": Posterior("low_dim_gauss_mix-low_dim_gauss_mix", mixture, named("y")),
    "logearn_interaction": Posterior("earnings-logearn_interaction", earnings, earnings_data),
    "diamonds": Posterior("diamonds-diamonds", diamonds, diamonds_data),
}


def content(folder: Path, what: str) -> Any:
    """What ``WHAT.json.zip`` of a posterior holds."""
    with zipfile.ZipFile(folder / f"{what}.json.zip") as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def parameters(draws: ss.Draws, names: list[str]) -> dict[str, np.ndarray]:
    """The reference's parameters in draws of ours, each of shape (chain, draw): `beta[1]` is ``beta[..., 0]``."""
    sites = draws.sites()
    found = {}
    for name in names:
        site, _, index = name.removesuffix("]").partition("[")
        value = sites[site] if not index else sites[site][..., int(index) - 1]
        found[name] = np.asarray(value, np.float64)
    return found

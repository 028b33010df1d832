"""Every public score, noise process, path and sampler, under a name: small and cheap, made by a constructor.

The generic laws in `test_laws.py` run over all of them. Constructors take the default floating dtype, so that they
make float64 cases under `jax.enable_x64`. Targets are skewed or off centre: symmetric ones hide wrong signs.
"""

from collections.abc import Callable
from typing import Any

import blackjax
import diffrax
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from scoresample.paths import (
    EDM,
    OU,
    VE,
    VP,
    AbstractNoiseProcess,
    AbstractScorePath,
    CascadedDensity,
    CentredScore,
    EmpiricalPerturbedScore,
    PerturbedEnergy,
    PerturbedScore,
    ProbabilityFlowDensity,
    SubVP,
    TemperedPath,
    combine_observations,
    perturb,
)
from scoresample.samplers import (
    HMC,
    MALA,
    MCLMC,
    NUTS,
    SGHMC,
    SGLD,
    ULA,
    AbstractParticleSampler,
    AbstractSampler,
    AdjustedMCLMC,
    AnnealedLangevin,
    Barker,
    BlackJAX,
    DiffraxSolver,
    DynamicHMC,
    EulerMaruyama,
    ExponentialAdams,
    ExponentialIntegrator,
    KarrasHeun,
    ParallelMALA,
    PredictorCorrector,
    ProbabilityFlowODE,
    Restart,
    ReverseSDE,
    TemperedSMC,
    WithDensity,
)
from scoresample.scores import (
    AbstractScore,
    DensityScore,
    Gaussian,
    GaussianField,
    GaussianMixture,
    LatticePhi4,
    LineIntegralDensity,
    Position,
    Score,
    add_scores,
    from_numpyro,
    named_sites,
    power_law_spectrum,
    temper,
)
from scoresample.wavelets import ConditionalGaussianField, LocalEnergyPath, WaveletTransform, perturb_wavelets


def gaussian() -> Gaussian:
    return Gaussian(jnp.array([1.0, -2.0]), jnp.array([[2.0, 0.6], [0.6, 0.5]]))


def gaussian_array() -> Gaussian:
    return Gaussian(jnp.arange(6.0).reshape(2, 3), jnp.linspace(0.5, 2.0, 6).reshape(2, 3))


def gaussian_tree() -> Gaussian:
    return Gaussian(tree_position(), {"effects": jnp.array([0.5, 4.0]), "log_scale": jnp.asarray(0.1)})


def gaussian_field() -> GaussianField:
    return GaussianField(power_law_spectrum((2, 4), 2.0), 0.5)


def mixture() -> GaussianMixture:
    return GaussianMixture(
        [0.3, 0.7], [[-1.0, 0.5], [2.0, 1.0]], [[[1.0, 0.3], [0.3, 0.5]], [[0.4, -0.1], [-0.1, 0.8]]]
    )


def tree_logdensity(position: dict[str, Array], shape: Array, centre: Array) -> Array:
    """A log-gamma variable `log_scale` beside a normal vector: skewed, with a known normalising constant."""
    u = position["log_scale"]
    return shape * u - jnp.exp(u) - 0.5 * jnp.sum((position["effects"] - centre) ** 2)


def tree_position() -> dict[str, Array]:
    return {"effects": jnp.array([0.5, -1.0]), "log_scale": jnp.asarray(0.3)}


def density() -> DensityScore:
    return DensityScore(tree_logdensity, jnp.asarray(3.0), jnp.array([1.0, -1.0]), structure=tree_position())


def quartic(position: Array, slope: Array) -> Array:
    """The score of ``exp(-sum x^4 / 4 + slope x)``: a gradient, skewed by the slope."""
    return -(position**3) + slope


def bare() -> Score:
    return Score(quartic, jnp.array([0.5, -1.0]), structure=jnp.zeros(2))


def tree_score(position: dict[str, Array], centre: Array) -> dict[str, Array]:
    return {"effects": centre - position["effects"], "log_scale": 3.0 - jnp.exp(position["log_scale"])}


def bare_tree() -> Score:
    return Score(tree_score, jnp.array([1.0, -1.0]), structure=tree_position())


def numpyro_model(y: Array) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    mean = numpyro.deterministic("mean", 0.5 * scale)
    numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def numpyro_posterior() -> DensityScore:
    return from_numpyro(numpyro_model, (jnp.array([0.3, -1.0, 2.5]),))


def five(t: Array) -> Array:
    """A Lipschitz constant for all levels."""
    return 5.0 + 0.0 * t


SCORES: dict[str, Callable[[], AbstractScore]] = {
    "gaussian": gaussian,
    "gaussian of an array": gaussian_array,
    "gaussian of a tree": gaussian_tree,
    "gaussian field": gaussian_field,
    "mixture": mixture,
    "log density of a tree": density,
    "bare score": bare,
    "bare score of a tree": bare_tree,
    "phi^4 on a lattice": lambda: LatticePhi4((3, 4), kappa=0.34, lam=0.8),
    "cascade": lambda: CascadedDensity(perturb_wavelets(GaussianField(power_law_spectrum((4, 4), 2.0), 0.5), VP())),
    "line integral": lambda: LineIntegralDensity(bare(), jnp.array([0.5, -0.5])),
    "NumPyro model": numpyro_posterior,
    "sum of densities": lambda: add_scores(gaussian(), mixture()),
    "sum with a bare score": lambda: add_scores(gaussian(), bare()),
    "tempered density": lambda: temper(mixture(), 0.5),
    "tempered bare score": lambda: temper(bare(), 0.5),
    "level of a density path": lambda: perturb(mixture(), VP()).at(0.3),
    "level of a network": lambda: network_path().at(0.3),
    "density of a probability flow": lambda: ProbabilityFlowDensity(perturb(gaussian_tree(), VP())),
}

PROCESSES: dict[str, Callable[[], AbstractNoiseProcess]] = {
    "VP": VP,
    "VE": VE,
    "VP with rates": lambda: VP(beta_min=0.01, beta_max=8.0),
    "VE with scales": lambda: VE(sigma_min=0.01, sigma_max=30.0),
    "sub-VP": SubVP,
    "sub-VP with rates": lambda: SubVP(beta_min=0.01, beta_max=8.0),
    "OU": OU,
    "OU with a horizon": lambda: OU(horizon=3.0),
    "EDM": EDM,
    "EDM with a scale": lambda: EDM(sigma_max=20.0),
}


def standard_denoiser(z: Position, sigma: Array, gain: Array) -> Position:
    """The denoiser of standard normal data, off by a little so that it is nobody's exact score."""
    return jax.tree.map(lambda x: gain.astype(x.dtype) * x / (1 + sigma**2), z)


def network_path(gain: float = 0.9) -> PerturbedScore:
    """Somebody's own denoiser of trees, with weights in `args` and a standardisation."""
    return PerturbedScore(
        standard_denoiser,
        VE(0.01, 50.0),
        structure=tree_position(),
        prediction="denoised",
        time="sigma",
        args=(jnp.asarray(gain),),
        location={"effects": jnp.array([3.0, -4.0]), "log_scale": jnp.asarray(1.0)},
        scale={"effects": jnp.array([0.5, 2.0]), "log_scale": jnp.asarray(0.1)},
    )


def energy(y: Position, s: Array, tilt: Array) -> Array:
    """The log density of standard normal data with noise, skewed by a little so that it is nobody's exact one."""
    total = sum(jnp.sum(x**2) / (1 + s**2) for x in jax.tree.leaves(y))
    return -0.5 * total + tilt.astype(s.dtype) * sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(y)) / (1 + s)


def energy_path() -> PerturbedEnergy:
    """Somebody's own log densities of noised trees, with a weight in `args` and a standardisation."""
    return PerturbedEnergy(
        energy,
        VP(),
        structure=tree_position(),
        args=(jnp.asarray(0.3),),
        location={"effects": jnp.array([3.0, -4.0]), "log_scale": jnp.asarray(1.0)},
        scale={"effects": jnp.array([0.5, 2.0]), "log_scale": jnp.asarray(0.1)},
    )


def tree_condition() -> dict[str, Array]:
    return {"high": jnp.array([0.3, -0.7]), "low": jnp.asarray(2.0)}


def conditional_path() -> PerturbedScore:
    """Somebody's own denoiser of trees around a condition, which is a tree too, under one condition."""

    def denoiser(z: Position, sigma: Array, condition: Any, gain: Array) -> Position:
        shift = {"effects": condition["high"], "log_scale": condition["low"]}
        return jax.tree.map(lambda x, c: (gain.astype(x.dtype) * x + sigma**2 * c) / (1 + sigma**2), z, shift)

    path = PerturbedScore(
        denoiser,
        VE(0.01, 50.0),
        structure=tree_position(),
        prediction="denoised",
        time="sigma",
        args=(jnp.asarray(0.9),),
        condition=tree_condition(),
        condition_location=1.0,
        condition_scale={"high": jnp.array([1.0, 2.0]), "low": jnp.asarray(3.0)},
    )
    return path.given(tree_condition())


def combined_path(method: Any) -> AbstractScorePath:
    """Of three observations, under a prior that is not the standard one, by a score of a tree."""
    score = conditional_path()
    observations = {"high": jnp.array([[0.3, -0.7], [1.0, 2.0], [0.0, 0.5]]), "low": jnp.array([2.0, -1.0, 0.4])}
    prior = Gaussian(tree_position(), {"effects": jnp.array([9.0, 50.0]), "log_scale": jnp.asarray(0.2)})
    covariance = jnp.diag(jnp.array([0.2, 3.0, 0.1]))
    moments = jnp.array([[3.0, -4.0, 1.0], [3.4, -2.0, 0.9], [2.9, -4.0, 1.0]]), jnp.stack(3 * [covariance])
    return combine_observations(score, observations, prior=prior, method=method, moments=moments, chunk_size=2)


def conditional_energy_path() -> PerturbedEnergy:
    """Somebody's own log densities around a condition."""

    def logdensity(y: Position, s: Array, shift: Array) -> Array:
        return -0.5 * jnp.sum((y - shift) ** 2) / (1 + s**2) - 0.1 * jnp.sum(jnp.cos(y + shift)) / (1 + s)

    path = PerturbedEnergy(logdensity, VP(), structure=jnp.zeros(2), condition=jnp.zeros(2), condition_scale=2.0)
    return path.given(jnp.array([1.0, -3.0]))


def array_network_path() -> PerturbedScore:
    """A noise-predicting network of the discrete kind, on arrays of two axes."""
    return PerturbedScore(
        lambda z, index: z / (1.2 + 1e-3 * index), VP(), structure=jnp.zeros((2, 3)), prediction="noise", time="index"
    )


def points_of_a_tree() -> EmpiricalPerturbedScore:
    points = gaussian_tree().sample(jax.random.key(4), 20)
    return perturb(points, VP(), weights=jnp.arange(1.0, 21.0), bandwidth=0.3, location=0.5, scale=2.0)


def details_path() -> ConditionalGaussianField:
    """Of a field of 4 x 8 sites, given a coarser one."""
    field = GaussianField(power_law_spectrum((4, 8), 2.0), 0.5)
    return ConditionalGaussianField(field, VP()).given(jnp.arange(8.0).reshape(2, 4))


def local_energy_path() -> LocalEnergyPath:
    """Of the details of a field of 4 x 8 sites, given a coarser one."""
    couplings = jnp.zeros(23).at[0].set(3.0).at[1].set(-0.5).at[15].set(0.4).at[21].set(0.3)
    path = LocalEnergyPath(
        couplings, jax.ShapeDtypeStruct((3, 2, 4), couplings.dtype), WaveletTransform((4, 8), "haar", 1),
        mean=0.0, deviation=1.5, scale=jnp.full((3, 2, 4), 1.2), even=True,
    )  # fmt: skip
    return path.given(jnp.arange(8.0).reshape(2, 4) / 4)


def centred_path() -> CentredScore:
    """The score of a residual, of three correlated coordinates, under one condition."""

    def denoiser(y: Array, s: Array, condition: Array) -> Array:
        return (y + s**2 * 0.1 * condition[0] * jnp.tanh(y)) / (1 + s**2)

    inner = PerturbedScore(
        denoiser, VP(), structure=jnp.zeros(3), condition=jnp.zeros(2), prediction="denoised", time="sigma"
    )
    mixing = jnp.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 2.0]])
    path = CentredScore(inner, lambda c: jnp.stack([c[0], c[1], c[0] * c[1]]), mixing, constrain=named_sites)
    return path.given(jnp.array([1.0, -2.0]))


PATHS: dict[str, Callable[[], AbstractScorePath]] = {
    "noised gaussian": lambda: perturb(gaussian(), VP()),
    "noised gaussian of an array": lambda: perturb(gaussian_array(), VE(0.01, 50.0)),
    "noised gaussian field": lambda: perturb(gaussian_field(), VP()),
    "noised mixture": lambda: perturb(mixture(), VE(0.01, 50.0)),
    "network of a tree": network_path,
    "network of an array": array_network_path,
    "energy of a tree": energy_path,
    "conditional network of a tree": conditional_path,
    "conditional network under another process": lambda: conditional_path().with_process(VP()),
    "conditional energy": conditional_energy_path,
    "conditional network of a residual": centred_path,
    "many observations, by covariances": lambda: combined_path("gauss"),
    "many observations, by Jacobians": lambda: combined_path("jac"),
    "many observations, by bridges": lambda: combined_path("fnpse"),
    "network under another process": lambda: network_path().with_process(VP()),
    "noised gaussian of a tree": lambda: perturb(gaussian_tree(), VP()),
    "noised points": lambda: perturb(mixture().sample(jax.random.key(3), 30), VP()),
    "noised points of a tree, smoothed and weighted": points_of_a_tree,
    "noised points given a condition": lambda: perturb(
        mixture().sample(jax.random.key(3), 30), VE(0.01, 50.0), conditions=jnp.linspace(0.0, 1.0, 30)
    ).given(0.3),
    "noised details of a gaussian field": details_path,
    "local energy of details": local_energy_path,
    "tempered density of a tree": lambda: TemperedPath(Gaussian.like(tree_position(), 3.0), density()),
    "tempered": lambda: TemperedPath(Gaussian(jnp.zeros(2), 9.0), mixture(), scale=jnp.array([1.0, 2.0])),
}

ON_TEMPERED_PATHS = ("TemperedSMC", "AnnealedLangevin with weights")
"""Names of the samplers that need a tempered path."""

CHAIN_SAMPLERS: dict[str, Callable[[], AbstractSampler]] = {
    "NUTS": lambda: NUTS(max_num_doublings=5),
    "HMC": lambda: HMC(num_integration_steps=4),
    "DynamicHMC": lambda: DynamicHMC(max_num_steps=50),
    "MALA": MALA,
    "Barker": lambda: Barker(target_acceptance_rate=0.8),
    "MCLMC": lambda: MCLMC(steps_per_draw=2),
    "AdjustedMCLMC": lambda: AdjustedMCLMC(num_integration_steps=2.0),
    "ULA": lambda: ULA(step_size=0.05),
    "SGLD": lambda: SGLD(step_size=0.05),
    "SGHMC": lambda: SGHMC(step_size=0.1, num_integration_steps=3),
    "BlackJAX": lambda: BlackJAX(blackjax.mala, step_size=0.3),
}

PARTICLE_SAMPLERS: dict[str, Callable[[], AbstractParticleSampler[Any]]] = {
    "ReverseSDE": lambda: ReverseSDE(num_steps=6),
    "ReverseSDE by name": lambda: ReverseSDE(num_steps=3, solver="ddpm"),
    "ReverseSDE with Euler": lambda: ReverseSDE(num_steps=6, solver=diffrax.Euler(), eta=0.5),
    "ReverseSDE on the clock of its process": lambda: ReverseSDE(
        num_steps=3, solver=DiffraxSolver(diffrax.Euler(), clock="process")
    ),
    "ReverseSDE with churn": lambda: ReverseSDE(num_steps=3, solver=KarrasHeun(churn=1.0), grid="karras"),
    "ReverseSDE with restarts": lambda: ReverseSDE(
        num_steps=4, solver=Restart(num_restarts=2, num_restart_steps=2), grid="karras"
    ),
    "ReverseSDE with an exponential integrator": lambda: ReverseSDE(
        num_steps=3, solver=ExponentialIntegrator(), grid="exponential"
    ),
    "ReverseSDE with Euler-Maruyama": lambda: ReverseSDE(num_steps=20, solver=EulerMaruyama()),
    "ProbabilityFlowODE": lambda: ProbabilityFlowODE(num_steps=6),
    "ProbabilityFlowODE with Adams steps": lambda: ProbabilityFlowODE(
        num_steps=4, solver=ExponentialAdams(order=3, corrector=True), grid=(0.9, 0.6, 0.4, 0.2, 0.0)
    ),
    "ProbabilityFlowODE with adaptive steps": lambda: ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-3),
    "PredictorCorrector": lambda: PredictorCorrector(num_steps=6),
    "PredictorCorrector with Metropolis steps": lambda: PredictorCorrector(
        num_steps=4, corrector="metropolis", corrector_steps=(1, 2, 1, 2), predictor="exponential-integrator"
    ),
    "PredictorCorrector with underdamped steps": lambda: PredictorCorrector(
        num_steps=4, corrector="underdamped", corrector_steps=2, step_rule="snr", corrector_step_size=0.16
    ),
    "AnnealedLangevin": lambda: AnnealedLangevin(num_levels=4, steps_per_level=2),
    "AnnealedLangevin with weights": lambda: AnnealedLangevin(
        num_levels=4, steps_per_level=2, ladder="power", weights=True, step_rule=five
    ),
    "ParallelMALA": lambda: ParallelMALA(num_steps=12),
    "TemperedSMC": lambda: TemperedSMC(num_moves=2, num_integration_steps=2),
    "WithDensity": lambda: WithDensity(ProbabilityFlowODE(num_steps=4)),
}

SAMPLERS: dict[str, Callable[[], Any]] = {**CHAIN_SAMPLERS, **PARTICLE_SAMPLERS}

"""Posteriors from a simulator."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import DenoiserEnsemble, Encoded, Held, InformedNetwork, MeanNetwork, PosteriorNetwork
from scoresample.paths import (
    AbstractNoiseProcess,
    AbstractScorePath,
    CentredScore,
    Combination,
    PerturbedScore,
    combine_observations,
)
from scoresample.scores import AbstractSimulator, DensityScore, named_sites, simulator
from scoresample.training import fit_mean, fit_score, held_out_rows
from scoresample.workflows._doors import check_at_least
from scoresample.workflows._encoding import Encoding, Observation, make_encoding
from scoresample.workflows._held_out_density import mean_log_density
from scoresample.workflows._left_out import LeftOutParts

_FEWEST_SIMULATIONS = 100
_MEAN_EPOCHS = 60
_SETTINGS: dict[str, Any] = {"sigma_range": (0.003, 20.0), "batch_size": 64}
_WEIGHTING: dict[bool, Any] = {False: "likelihood", True: "uniform"}
"""Of networks from simulations alone, and of informed ones, whose errors at little noise are those of a gradient."""
_BATCH = 4096
"""Simulations at a time."""
_FIRST_SIMULATIONS = 20_000
"""Of a training with fresh simulations: those that its coordinates are made of, ..."""
_FRESH_SIMULATIONS = 20_000
"""... and those of every epoch."""
_PILOT_SHARE = 0.1
"""Of the epochs, for each of the two coordinates between which held-out simulations choose ..."""
_MOST_PILOT_POINTS = 256
"""... so many of them."""
_OF_THE_LAST = ("num_members", "checkpoint")
"""Settings that are those of the last training alone."""

_LEFT_OUT_SHARE = 0.5
"""Of exchangeable observations: how often some of their parts are left out in training."""

Coordinates = Literal["best", "regression", "prior"]
"""Where posteriors are learned: as residuals of a regression on the observation, or as the prior has them."""


class AmortisedPosterior(eqx.Module):
    """Posteriors of a simulator under any observation; made by [`fit_posterior`][scoresample.fit_posterior].

    Attributes:
        simulator: the prior and the simulator.
        score: the conditional score.
        encoding: from observations to the score's conditions.
        in_prior_coordinates: whether the score is that of the parameters, and not of residuals of a regression.
    """

    simulator: AbstractSimulator
    score: CentredScore
    encoding: Encoding
    in_prior_coordinates: bool = eqx.field(static=True)

    def given(self, observation: Observation) -> CentredScore:
        """The perturbed score of the posterior under one observation, or under one for each particle of a run.

        Where the simulator's observations are exchangeable parts, others may have fewer or more of them.

        Arguments:
            observation: one observation; or many, as many as there will be draws, in a list or with a leading axis on
                every array. Sets in a list may differ in their number of parts.

        Raises:
            ValueError: if shapes do not fit those of the simulator, or numbers are missing that never were there.
        """
        many, one = self.encoding.batch(observation)
        encoded = self.encoding(many)
        score = self.score_of_parts(encoded)
        return score.given(jax.tree.map(lambda x: x[0], encoded) if one else encoded)

    def score_of_parts(self, encoded: Encoded) -> CentredScore:
        """The conditional score for encoded observations of any number of parts."""
        if encoded.values.shape[1:] == self.encoding.shape:
            return self.score
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), encoded)
        # What is encoded is standardised already.
        zeros, ones = (jax.tree.map(lambda x, f=f: f(x.shape, x.dtype), shapes) for f in (jnp.zeros, jnp.ones))
        return eqx.tree_at(_of_conditions, self.score, (shapes, zeros, ones))

    def disagreement(self, observation: Observation, position: Array, sigma: float = 0.3) -> Array:
        """How far the members of an ensemble are apart at a position, in units of the noise: a scalar.

        Arguments:
            observation: one observation.
            position: one position.
            sigma: the noise, in spreads of the coordinates in which the score was learned.

        Raises:
            ValueError: if there is one network alone.
        """
        score = self.given(observation)
        if not isinstance(score.inner.fn, DenoiserEnsemble):
            raise ValueError("`posterior` has one network. Train several: fit_posterior(..., num_members=3).")
        assert score.inner.conditioning is not None
        z = score.frame.to_standard(position)
        return score.inner.fn.spread(z, jnp.asarray(sigma, z.dtype), score.inner.conditioning.value)

    def given_all(
        self,
        observations: Observation,
        *,
        key: Array,
        method: Combination = "gauss",
        prior: Any = None,
        **settings: Any,
    ) -> AbstractScorePath:
        """The posterior of many independent observations together, from the scores under each.

        For observations that are independent given the parameters, each like one of the simulator's: no network need
        have seen so many. Errors of the score add up with their number; see
        [`combine_observations`][scoresample.combine_observations].

        Arguments:
            observations: one or more, in a list or with a leading axis on every array.
            key: random key of the draws that find the width of each posterior.
            method: ``"gauss"``, ``"jac"`` or ``"fnpse"`` (for annealed Langevin).
            prior: the noised prior, or a `Gaussian` of positions; by default standard normal, which it is where all
                parameters have quantile functions (``simulator.is_normal``).
            **settings: further settings of `combine_observations`.

        Raises:
            ValueError: if the posteriors were learned as residuals of a regression, whose coordinates move with the
                observation, or the prior is not normal and none is given.
        """
        if not self.in_prior_coordinates:
            raise ValueError(
                "`observations`: these posteriors were learned as residuals of a regression, in coordinates that move "
                'with the observation. Train with fit_posterior(..., coordinates="prior") to combine many.'
            )
        if prior is None and not self.simulator.is_normal:
            raise ValueError(
                "`prior` is needed: not all parameters have quantile functions, so the prior is not standard normal in "
                "these coordinates. Train a score of it: fit_score(posterior.simulate(key, 10_000)[0], key=key)."
            )
        encoded = self.encoding(self.encoding.batch(observations)[0])
        inner = eqx.tree_at(lambda s: s.constrain, self.score_of_parts(encoded).inner, self.constrain)
        return combine_observations(inner, encoded, prior=prior, method=method, key=key, **settings)

    def density(self, observation: Observation) -> DensityScore:
        """The exact posterior under one observation, where the simulator has a likelihood."""
        return self.simulator.posterior_density(self.encoding.completed(observation))

    def simulate(self, key: Array, num: int) -> tuple[Array, Observation]:
        """Parameters from the prior, in the coordinates of draws, and their observations."""
        return simulate(self.simulator, key, num)

    @property
    def constrain(self) -> Callable[[Any], dict[str, Array]]:
        """Positions -> parameters by name."""
        return self.simulator.constrain

    @property
    def record(self) -> Any:
        """The history of the training."""
        return self.score.record


def _of_conditions(score: CentredScore) -> Any:
    conditioning = score.inner.conditioning
    assert conditioning is not None
    return conditioning.structure, conditioning.frame.location, conditioning.frame.scale


@eqx.filter_jit
def _simulate(model: AbstractSimulator, key: Array, num: int) -> tuple[Array, Observation]:
    return model.simulate(key, num)


def simulate(model: AbstractSimulator, key: Array, num: int) -> tuple[Array, Observation]:
    """Draws of the joint law, in batches of one compiled size."""
    size = min(num, _BATCH)
    batches = [_simulate(model, jax.random.fold_in(key, k), size) for k in range(-(-num // size))]
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:num], *batches)


def fit_posterior(
    model: Callable[..., Any] | AbstractSimulator,
    prior: Any = None,
    *,
    key: Array,
    observed: Sequence[str] | str | None = None,
    log_likelihood: Callable[..., Any] | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_simulations: int | None = 10_000,
    exchangeable: bool = False,
    informed: bool = False,
    coordinates: Coordinates = "best",
    width: int = 128,
    depth: int = 3,
    num_epochs: int = 150,
    process: AbstractNoiseProcess | None = None,
    **settings: Any,
) -> AmortisedPosterior:
    """Learn the posteriors of a simulator under all observations at once: neural posterior score estimation.

    Parameters are drawn from the prior and observations from the simulator; a network learns the score of the noised
    parameters given an observation by conditional denoising score matching. Parameters are learned in coordinates in
    which the prior is standard normal ([`simulator`][scoresample.simulator]), so that draws never leave its support;
    where that helps, as residuals of a regression on the observation, which need not be told where posteriors lie.
    Observations are standardised, numbers far out are drawn in by their logarithm, and missing ones (NaN, where the
    simulator leaves numbers out too) are told as missing.

    ``posterior.given(observation)`` is a perturbed score like any other: every path sampler draws from it, and every
    chain. How far the draws can be trusted is not known from the training: [`certify`][scoresample.certify] weighs them
    by the exact density where the simulator has one.

    Source: Geffner, Papamakarios and Mnih 2023, arXiv 2209.14249, section 3; Sharrock et al. 2024, arXiv 2210.04872.

    Arguments:
        model: a simulator, or what [`simulator`][scoresample.simulator] makes one of: a function (key, parameters) ->
            observation beside a `prior`, or a NumPyro model beside the names of its `observed` sites.
        prior: the prior of a function's parameters.
        key: random key.
        observed: the observed sites of a NumPyro model.
        log_likelihood: (parameters, observation) -> log density, beside a function.
        model_args: arguments of a NumPyro model, without observations.
        model_kwargs: its keyword arguments, likewise.
        num_simulations: the budget; None for 20,000 fresh ones in every epoch, for simulators that cost little.
        exchangeable: whether the first axis of an observation holds independent parts that are alike, whose order tells
            nothing. In half of the steps a random number of them is left out (but not of residuals of a regression),
            which keeps the network from remembering them; it then takes fewer parts than the simulator makes, too. For
            more, let the simulator pad with parts of NaN. An informed network needs a likelihood that leaves out parts
            of NaN for this.
        informed: show the network the gradient of the exact density. It needs a likelihood, and every evaluation of
            the score then takes one of its gradient. No likelihood-free inference any more.
        coordinates: ``"regression"``, residuals of a regression on the observation; ``"prior"``; or ``"best"``, which
            of both gives held-out parameters the higher log density after a short training.
        width: width of the network.
        depth: number of its residual blocks.
        num_epochs: passes over the simulations.
        process: the noise process, ``VP()`` by default.
        **settings: further settings of [`fit_score`][scoresample.fit_score]; with ``num_members=3`` the score is the
            mean of three networks', and `disagreement` tells how far they are apart.

    Returns:
        The posteriors.

    Raises:
        TypeError: if the simulator or the prior is none.
        ValueError: if a setting or the simulations cannot be used; the message says why.

    Examples:
        >>> import jax, numpyro.distributions as dist
        >>> import scoresample as ss
        >>> def observe(key, theta):
        ...     return theta + 0.1 * jax.random.normal(key, theta.shape)
        >>> prior = dist.Uniform(-1.0, 1.0).expand([2]).to_event(1)
        >>> posterior = ss.fit_posterior(
        ...     observe, prior, key=jax.random.key(0), num_simulations=500, num_epochs=2, coordinates="prior", width=16
        ... )
        >>> draws = ss.sample(posterior.given([0.2, -0.5]), key=jax.random.key(1), num_samples=5)
        >>> draws.position.shape
        (1, 20, 2)
    """
    if coordinates not in get_args(Coordinates):
        raise ValueError(f"`coordinates` must be one of {list(get_args(Coordinates))}, got {coordinates!r}.")
    check_at_least(1, width=width, depth=depth, num_epochs=num_epochs)
    if num_simulations is not None:
        check_at_least(_FEWEST_SIMULATIONS, num_simulations=num_simulations)
    if isinstance(model, AbstractSimulator):
        joint = model
    else:
        joint = simulator(
            model, prior, observed=observed, log_likelihood=log_likelihood, model_args=model_args,
            model_kwargs=model_kwargs,
        )  # fmt: skip
    if informed and not joint.has_likelihood():
        raise ValueError(
            "`informed` needs the density of observations. Pass `log_likelihood=`, write the simulator as a NumPyro "
            "model, or leave it out."
        )
    key_simulate, key_pilot, key_network, key_fit = jax.random.split(key, 4)
    first = _FIRST_SIMULATIONS if num_simulations is None else num_simulations
    positions, observations = simulate(joint, key_simulate, first)
    encoding = make_encoding(observations, joint.observation, exchangeable=exchangeable)
    conditions = encoding(observations)
    training = _Training(joint, encoding, informed, width, depth, process, settings)
    # The rows that fit_score holds out too: all trainings are compiled once, and choices look at what none has seen.
    held_out = jnp.asarray(held_out_rows(key_fit, first, settings.get("validation_fraction", 0.1)))
    plain = MeanNetwork(joint.dimension, **training.shape, width=width, key=key_network)
    fitted, inflation = plain, 1.0
    if coordinates != "prior":
        fitted, inflation = fit_mean(
            plain, positions, conditions, held_out, key=key_pilot, num_epochs=_MEAN_EPOCHS, batch_size=256,
            learning_rate=1e-3,
        )  # fmt: skip

    def residuals(centre: MeanNetwork) -> Array:
        z = _residuals(centre, positions, conditions)
        return z if centre is plain else jnp.where(held_out[:, None], z, inflation * z)

    if coordinates == "best":
        test = np.flatnonzero(held_out)[:_MOST_PILOT_POINTS]
        others = jax.tree.map(lambda x: x[test], (positions, conditions))
        epochs = max(int(_PILOT_SHARE * num_epochs), 1)
        alone = {name: value for name, value in settings.items() if name not in _OF_THE_LAST}
        # One network and no gradients, whatever the last training has: the choice is one of coordinates.
        pilot = _Training(joint, encoding, False, width, depth, process, alone)
        scores = [
            pilot.fit(centre, centre is plain, residuals(centre), conditions, epochs, key_fit)
            for centre in (plain, fitted)
        ]
        # Without the simulator, for which it would be compiled anew.
        bare = [eqx.tree_at(lambda s: s.constrain, score, named_sites) for score in scores]
        logs = [float(mean_log_density(score, others[0], others[1], pilot.sigma_range)) for score in bare]
        fitted = fitted if logs[1] > logs[0] else plain
    if num_simulations is None:
        score = training.fit_fresh(fitted, fitted is plain, num_epochs, key_fit)
    else:
        score = training.fit(fitted, fitted is plain, residuals(fitted), conditions, num_epochs, key_fit)
    encoding = replace(encoding, takes_fewer=training.leaves_out(fitted is plain))
    return AmortisedPosterior(joint, score, encoding, fitted is plain)


class _Training:
    """What trainings in all coordinates share."""

    def __init__(
        self, joint: AbstractSimulator, encoding: Encoding, informed: bool, width: int, depth: int, process: Any,
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        self.joint, self.encoding, self.informed = joint, encoding, informed
        self.width, self.depth, self.process, self.settings = width, depth, process, settings
        self.shape: dict[str, Any] = {
            "shape": encoding.shape, "exchangeable": encoding.exchangeable, "has_gaps": encoding.has_gaps
        }  # fmt: skip
        self.sets_can_shrink = encoding.exchangeable and encoding.shape[0] > 1
        if self.sets_can_shrink and informed:
            self.sets_can_shrink = _knows_missing_parts(joint)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The noise levels."""
        return self.settings.get("sigma_range", _SETTINGS["sigma_range"])

    def fit(
        self, centre: MeanNetwork, in_prior: bool, residuals: Array, conditions: Encoded, num_epochs: int, key: Array
    ) -> CentredScore:
        """Train the score of what a normal law for every observation leaves over."""
        return self._fit(residuals, conditions, centre, num_epochs, key, augment=self._augment(in_prior))

    def fit_fresh(self, centre: MeanNetwork, in_prior: bool, num_epochs: int, key: Array) -> CentredScore:
        """The same with new simulations in every epoch."""
        key_simulate, key_fit = jax.random.split(key)

        def batches() -> Iterator[tuple[Array, Encoded]]:
            for number in itertools.count():
                positions, observations = simulate(
                    self.joint, jax.random.fold_in(key_simulate, number), _FRESH_SIMULATIONS
                )
                conditions = self.encoding(observations)
                yield _residuals(centre, positions, conditions), conditions

        return self._fit(
            batches, "paired", centre, num_epochs, key_fit, buffer_size=_FRESH_SIMULATIONS,
            augment=self._augment(in_prior),
        )  # fmt: skip

    def leaves_out(self, in_prior: bool) -> bool:
        """Whether parts of sets are left out: not where coordinates would move with them."""
        return self.sets_can_shrink and in_prior and "augment" not in self.settings

    def _augment(self, in_prior: bool) -> LeftOutParts | None:
        # Trainings in both coordinates are compiled once, so where nothing is left out the share is 0.
        share = _LEFT_OUT_SHARE if self.leaves_out(in_prior) else 0.0
        return LeftOutParts(jnp.asarray(share)) if self.sets_can_shrink else None

    def _fit(
        self, data: Any, conditions: Any, centre: MeanNetwork, num_epochs: int, key: Array, **settings: Any
    ) -> CentredScore:
        score = fit_score(
            data,
            conditions=conditions,
            key=key,
            network=lambda k: self._network(centre, k),
            standardise="none",
            standardise_conditions="none",
            num_epochs=num_epochs,
            process=self.process,
            **(_SETTINGS | {"weighting": _WEIGHTING[self.informed]} | settings | self.settings),
        )
        assert isinstance(score, PerturbedScore)
        return CentredScore(score, centre, centre.mixing, constrain=self.joint.constrain)

    def _network(self, centre: MeanNetwork, key: Array) -> Any:
        size = self.joint.dimension
        sizes: dict[str, Any] = {**self.shape, "width": self.width, "depth": self.depth, "key": key}
        if not self.informed:
            return PosteriorNetwork(size, **sizes)
        gradient = Held(PosteriorGradient(self.joint, self.encoding, centre))
        return InformedNetwork(PosteriorNetwork(2 * size, outputs=2 * size, **sizes), gradient)


def _knows_missing_parts(joint: AbstractSimulator) -> bool:
    """Whether the likelihood of a set has a value and a gradient where its last part is missing."""
    positions, observations = simulate(joint, jax.random.key(0), 1)
    fewer = jax.tree.map(lambda x: x[0].astype(positions.dtype).at[-1].set(jnp.nan), observations)
    value, gradient = jax.value_and_grad(joint.log_likelihood)(positions[0], fewer)
    return bool(jnp.isfinite(value) & jnp.isfinite(gradient).all())


class PosteriorGradient:
    """The gradient of the exact log posterior density in the coordinates of residuals."""

    def __init__(self, joint: AbstractSimulator, encoding: Encoding, centre: MeanNetwork) -> None:
        self.joint, self.encoding, self.centre = joint, encoding, centre

    def __call__(self, z: Array, condition: Encoded) -> Array:
        mean, mixing = self.centre(condition), self.centre.mixing
        observation = self.encoding.decode(condition)

        def log_joint(z: Array) -> Array:
            u = mean + mixing @ z
            return self.joint.log_prior(u) + self.joint.log_likelihood(u, observation)

        return jax.grad(log_joint)(z)


@eqx.filter_jit
def _residuals(centre: MeanNetwork, positions: Array, conditions: Any) -> Array:
    return jnp.linalg.solve(centre.mixing, (positions - jax.vmap(centre)(conditions)).T).T

"""One posterior, from observation to report: draw, certify, look again with NUTS, calibrate, and check the model."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks import Check
from scoresample.diagnostics import PosteriorPredictiveCheck
from scoresample.inference import Draws, check_count, check_key, sample
from scoresample.paths import TrainingRecord
from scoresample.report import Comparison, Verdict, compare, form_verdict
from scoresample.samplers import NUTS, WithDensity
from scoresample.scores import named_sites
from scoresample.workflows._calibrate import calibrate
from scoresample.workflows._calibration import Calibration
from scoresample.workflows._certify import Certificate, certify
from scoresample.workflows._encoding import Observation
from scoresample.workflows._fit_posterior import AmortisedPosterior
from scoresample.workflows._posterior_analysis import PosteriorAnalysis
from scoresample.workflows._posterior_predictive import posterior_predictive_check
from scoresample.workflows._present_statistics import Statistics, present_statistics
from scoresample.workflows._reweight import reweight

_NUTS = "NUTS"
_NAMES = {
    "use": "learned posterior",
    "use weighted": "learned posterior, weighted",
    "use polished": "learned posterior, polished",
    "do not use": "learned posterior",
}
_ACCEPTANCE = 0.9
"""What NUTS tunes to: smaller steps than by default, which necks of hierarchies need."""
_FEWEST_DRAWS = 100
_UNVERIFIED = "compared with a trusted reference"
"""The check of `compare` in whose place the certificate stands, or the words that there is none."""
_MORE = (
    "Train on more simulations (with none of them used twice, if the simulator costs little) or for longer, or show "
    "the network the gradient of the exact density (informed)"
)


def analyse_posterior(
    posterior: AmortisedPosterior,
    observation: Observation,
    *,
    key: Array,
    num_samples: int = 2000,
    sampler: WithDensity | None = None,
    nuts: bool = True,
    num_chains: int = 4,
    num_warmup: int = 1000,
    calibration: Calibration | int = 200,
    statistics: Statistics | None = None,
    title: str = "Posterior",
    reproduce: str = "",
    progress: bool | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> PosteriorAnalysis:
    """Draw from the learned posterior of one observation, and find out how far the draws can be trusted.

    Where the simulator has a likelihood:

    * the draws are weighed by the exact density ([`certify`][scoresample.certify]), and used as they came, weighted or
      polished, as their certificate says;
    * [`NUTS`][scoresample.NUTS] runs on the same density from starts of its own. If its chains agree with each other
      they are the reference, which also sees what no weight can: a part of the posterior that the network missed.

    Without one neither can be had. [`calibrate`][scoresample.calibrate] then says whether posteriors are right on
    average over observations; that is evidence about this one, and no proof, so the verdict is "use with care" at best.

    Either way a [`posterior_predictive_check`][scoresample.posterior_predictive_check] asks whether the model makes
    data like these.

    Arguments:
        posterior: what [`fit_posterior`][scoresample.fit_posterior] returned.
        observation: one observation.
        key: random key.
        num_samples: draws of the learned posterior, at least 100; NUTS draws as many.
        sampler: how they are drawn, by default ``WithDensity()``. Without a likelihood its inner sampler draws.
        nuts: whether to run NUTS, where there is a likelihood.
        num_chains: its chains.
        num_warmup: their warm-up steps.
        calibration: how many observations to simulate, 0 for none; or a calibration of these posteriors that was made
            before.
        statistics: observation -> named scalars or arrays that the posterior-predictive check compares. By default
            every number of the observation that is not missing; of exchangeable parts their means, standard deviations
            and extremes.
        title: heading of the report.
        reproduce: the command that makes this again, to show with the report.
        progress: show progress bars; by default only on a terminal.
        report: called with a line of text before each stage.

    Returns:
        The [`PosteriorAnalysis`][scoresample.PosteriorAnalysis]; ``.save(folder)`` writes the report and the draws.

    Raises:
        TypeError: if `posterior` is no amortised posterior, or the sampler no `WithDensity`.
        ValueError: if the observation does not fit the simulator, or a number is out of range.
        SamplingError: if draws of the learned posterior are not finite.

    Examples:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> import scoresample as ss
        >>> def model():
        ...     theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("x", dist.Normal(theta, 0.5))
        >>> tiny = {"num_simulations": 200, "num_epochs": 1, "width": 8, "depth": 1, "coordinates": "prior"}
        >>> posterior = ss.fit_posterior(model, observed="x", key=jax.random.key(0), **tiny)
        >>> found = ss.analyse_posterior(
        ...     posterior, 2.0, key=jax.random.key(1), num_samples=100, nuts=False, calibration=0
        ... )
        >>> found.verdict.level  # one epoch is no training
        'do not use'
    """
    key = check_key(key)
    if not isinstance(posterior, AmortisedPosterior):
        raise TypeError(f"`posterior` must be what fit_posterior returned, got {type(posterior).__name__}.")
    num_samples = check_count("num_samples", num_samples, _FEWEST_DRAWS, "Fewer cannot be judged.")
    if isinstance(calibration, int) and calibration != 0:
        check_count("calibration", calibration, 100, "Fewer tell nothing; 0 leaves it out.")
    sampler = WithDensity() if sampler is None else sampler
    if not isinstance(sampler, WithDensity):
        raise TypeError(f"`sampler` must be a WithDensity, got {type(sampler).__name__}: WithDensity(sampler).")
    path = posterior.given(observation)
    if path.condition_axes() is not None:
        raise ValueError("`observation` must be one observation: many came. Analyse them one by one.")
    keys = dict(zip(("draws", "certify", "nuts", "calibrate", "predict"), jax.random.split(key, 5), strict=True))
    stages = _Stages(report)
    exact = posterior.simulator.has_likelihood()

    with stages("drawing from the learned posterior", "drawing"):
        learned = sample(
            path, sampler if exact else sampler.sampler, key=keys["draws"], num_samples=num_samples, num_chains=1,
            progress=progress,
        )  # fmt: skip
    certificate, log_weights, chains, reason = None, None, None, ""
    if exact:
        density = posterior.density(observation)
        with stages("weighing the draws by the exact density", "certifying"):
            try:
                certificate = certify(learned, density, key=keys["certify"])
                log_weights = np.asarray(reweight(learned, density).log_weights)
            except ValueError as error:
                # Not one draw lies where the density is not zero.
                certificate, reason = None, str(error)
        if nuts:
            with stages("running NUTS on the exact density", "NUTS"):
                chains = sample(
                    density, NUTS(target_acceptance_rate=_ACCEPTANCE), key=keys["nuts"],
                    num_samples=-(-num_samples // num_chains),
                    num_chains=num_chains, num_warmup=num_warmup, progress=progress, throw=False,
                )  # fmt: skip
    calibrated = None
    if isinstance(calibration, Calibration):
        calibrated, stages.seconds["calibrating"] = calibration, calibration.seconds
    if isinstance(calibration, int) and calibration:
        with stages(f"calibrating on {calibration} simulated observations", "calibrating"):
            calibrated = calibrate(
                posterior, key=keys["calibrate"], num_simulations=calibration, sampler=sampler.sampler,
                progress=progress,
            )  # fmt: skip
    verdict_word = "use" if certificate is None else certificate.verdict
    name = _NAMES["do not use" if exact and certificate is None else verdict_word]
    # Under "do not use" the certificate holds weights that rest on a few draws: those as they came are easier to read.
    draws = learned if certificate is None or certificate.verdict == "do not use" else certificate.draws
    with stages("simulating from the draws", "replicates"):
        predictive, remark = _predictive(posterior, draws, observation, statistics, keys["predict"])
    comparison = compare(
        {name: _named(draws)} | ({} if chains is None else {_NUTS: _named(chains)}),
        reference=None if chains is None else _NUTS,
        fields=False,
        title=title,
    )
    evidence = _Evidence(comparison, name, exact, certificate, reason, calibrated, predictive)
    record = posterior.record
    return PosteriorAnalysis(
        title=title,
        verdict=evidence.verdict(),
        headline=evidence.headline(),
        remarks=(*evidence.remarks(), *([remark] if remark else [])),
        name=name,
        draws=draws,
        learned=learned,
        nuts=chains,
        certificate=certificate,
        log_weights=log_weights,
        calibration=calibrated,
        predictive=predictive,
        comparison=comparison,
        record=record if isinstance(record, TrainingRecord) else None,
        settings=_settings(posterior, num_samples),
        seconds=({"training": record.seconds} if isinstance(record, TrainingRecord) else {}) | stages.seconds,
        reproduce=reproduce,
    )


class _Stages:
    """Tells what is being done, and how long it took."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.seconds: dict[str, float] = {}
        self._name, self._started = "", 0.0

    def __call__(self, line: str, name: str) -> "_Stages":
        self.report(line)
        self._name, self._started = name, time.perf_counter()
        return self

    def __enter__(self) -> None:
        """Nothing to hold."""

    def __exit__(self, *_: object) -> None:
        """Keep the time."""
        self.seconds[self._name] = time.perf_counter() - self._started


@dataclass(frozen=True)
class _Evidence:
    """What the verdict is made of."""

    comparison: Comparison
    name: str
    exact: bool
    certificate: Certificate | None
    reason: str
    calibration: Calibration | None
    predictive: PosteriorPredictiveCheck | None

    def verdict(self) -> Verdict:
        """One verdict of all that bears on these draws, the weightiest first."""
        own = [check for check in self.comparison.verdicts[self.name].checks if check.name != _UNVERIFIED]
        first = self._weighed() if self.exact else self._unweighed()
        return form_verdict([*first, *own, *self._model()])

    def _weighed(self) -> list[Check]:
        remedy = f"{_MORE}; or take NUTS's draws, where they passed."
        if self.certificate is None:
            cause = f"No draw could be weighed by the exact density: {self.reason}"
            return [Check("draws with a weight", 0.0, 1.0, False, cause, remedy)]
        found = self.certificate
        refused = found.verdict == "do not use"
        cause = (
            f"The draws are far from the exact posterior (total variation {found.total_variation:.2f}), and neither "
            "weights nor moves mend them."
        )
        distance = found.total_variation
        check = Check("certificate: total variation as drawn", distance, float("nan"), not refused, cause, remedy)
        if refused:
            return [check, *found.checks]
        if found.verdict == "use polished":
            return [check, *(replace(each, severity="warn") for each in found.checks)]
        # What is wrong with the draws as they came is mended by their weights: the certificate has judged it.
        return [check, *(each for each in found.checks if each.passed)]

    def _unweighed(self) -> list[Check]:
        cause = (
            "The simulator has no likelihood: how far these draws are from the posterior of this observation cannot be "
            "measured."
        )
        remedy = "Pass `log_likelihood=` or write the simulator as a NumPyro model, where the density can be had."
        missing = Check("measured against the exact posterior", 0.0, 1.0, False, cause, remedy, "warn")
        return [*(() if self.calibration is None else self.calibration.checks), missing]

    def _model(self) -> list[Check]:
        if self.predictive is None:
            return []
        joint = self.predictive.checks[0]
        worst = [check for check in self.predictive.checks if not check.passed]
        return [replace(worst[0] if worst else joint, severity="warn")]

    def headline(self) -> str:
        """What to do with the draws, in one sentence."""
        refused = self.verdict().level == "do not use"
        if self.exact and (self.certificate is None or self.certificate.verdict == "do not use"):
            return f"Do not use these draws: they are not draws of the posterior.{self._instead()}"
        if refused and self.exact:
            return f"Do not use these draws: a check failed that weights cannot see.{self._instead()}"
        if refused and self.calibration is not None and not self.calibration.passed:
            return "Do not use these draws: the posteriors are not calibrated, not even on average over observations."
        if refused:
            return "Do not use these draws: a check failed."
        if self.certificate is not None:
            return {
                "use": "The draws are as good as draws of the exact posterior: use them as they are.",
                "use weighted": "Use the draws with their weights: every number and picture here does.",
                "use polished": "Use the polished draws: resampled by their weights, and moved until they forgot where "
                "they were.",
            }[self.certificate.verdict]
        if self.calibration is None:
            return "Nothing says whether these draws are right: there is no likelihood, and no calibration was made."
        return "The posteriors are calibrated on average, as far as the tests see; nothing measures this one."

    def _instead(self) -> str:
        reference = self.comparison.reference
        if reference is None or self.comparison.verdicts[reference].level == "do not use":
            return ""
        return f" {reference}, beside them, passed its own checks: use its draws."

    def remarks(self) -> tuple[str, ...]:
        """What the verdict leaves open."""
        if not self.exact:
            return ("No certificate is possible without a likelihood.",)
        blind = "Weights and moves cannot see a part of the posterior where no draw is"
        if self.comparison.reference is None:
            return (f"{blind}, and NUTS was not run for an independent look.",)
        return (f"{blind}; NUTS, from starts of its own, is an independent look.",)


def _predictive(
    posterior: AmortisedPosterior, draws: Draws, observation: Observation, statistics: Statistics | None, key: Array
) -> tuple[PosteriorPredictiveCheck | None, str]:
    """The check, or why there is none."""
    encoding = posterior.encoding
    show = statistics
    if show is None:
        show = present_statistics(posterior.simulator, observation, exchangeable=encoding.exchangeable)
    try:
        found = posterior_predictive_check(
            draws,
            lambda k, position: posterior.simulator.observe(position, key=k),
            jax.tree.map(jnp.asarray, observation),
            key=key,
            statistics=show,
        )
    except ValueError:
        if not encoding.has_gaps:
            raise
        return None, (
            "No posterior-predictive check: the simulator leaves out numbers that the data have. Name `statistics` "
            "that are finite for every observation."
        )
    return found, ""


def _named(draws: Draws) -> Draws:
    """The same draws in the model's own parameters; what never varies is left out."""
    sites = {name: np.asarray(value) for name, value in draws.sites().items()}
    varying = {name: value for name, value in sites.items() if value.size and np.ptp(value, axis=(0, 1)).max() != 0}
    return dataclasses.replace(draws, position=varying or sites, constrain=named_sites)


def _settings(posterior: AmortisedPosterior, num_samples: int) -> Mapping[str, str]:
    settings: dict[str, Any] = {
        "draws": num_samples,
        "parameters": posterior.simulator.dimension,
        "coordinates": "prior" if posterior.in_prior_coordinates else "residuals of a regression",
        "exchangeable parts": "yes" if posterior.encoding.exchangeable else "no",
        "likelihood": "yes" if posterior.simulator.has_likelihood() else "no",
    }
    return {name: str(value) for name, value in settings.items()}

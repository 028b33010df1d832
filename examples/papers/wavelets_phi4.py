"""Lattice fields at a phase transition, learned scale by scale, against a long HMC run.

Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003, section 4.2, and Guth, Lempereur, Bruna and Mallat 2023, arXiv
2306.00181. Run as `python -m examples.papers.wavelets_phi4 [--quick] [--json FILE] [--out FOLDER] [--cache FOLDER]`.

The phi^4 model in two dimensions is disordered at kappa = .32, near its transition at .34, and ordered at .36. Fields
of an HMC run (`phi4_reference`), each moved by a random symmetry of the model, teach the score of the coarsest field and
the conditional scores of the details of every scale; the finest ones are learned from the model's own score too, since
given the coarser field it holds theirs. New fields are drawn from coarse to fine. The exit status is 1 if a goal fails.
References, trainings and measurements are kept in the cache folder, so an interrupted run goes on.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

import scoresample as ss
from examples.papers import phi4_reference
from examples.papers.phi4_reference import KAPPAS, Reference, hmc_reference, observables, with_error
from tests.benchmarks.report import cached, keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
DISTANCES = (1, 4, 16)
MOST_ERRORS = 3.0
NULL_QUANTILE = 0.9973
"""What three standard errors are to a normal number."""
MOST_SCORE_ERROR = 0.1
CHECKED_NOISE = 0.01
"""Noise at which the finest learned score is held against the model's own, in units of the data."""
MANY_SITES = 16
"""Fields of so many sites or fewer are learned by a multilayer perceptron."""
NUM_BINS, NUM_RESAMPLED = 20, 2000
NUM_SHOWN = 4
SAMPLERS = ("reverse SDE", "MALA")


@dataclass(frozen=True)
class Setting:
    """How long and how large. One number for each stage, coarse to fine, where there are several.

    Attributes:
        length: of a side of the lattice.
        kappas: couplings of neighbours.
        hmc: of the reference.
        copies: random symmetric images of each field that are trained on.
        widths: of the networks.
        depths: residual blocks of the networks.
        epochs: of the trainings.
        batch_size: of the trainings.
        learning_rate: of the trainings.
        num_draws: fields that are drawn by the reverse SDE.
        num_steps: of the reverse SDE, at every scale.
        mala_kappas: where ParallelMALA is run too.
        mala_draws: its fields.
        mala_steps: its moves, at every scale.
    """

    length: int = 32
    kappas: tuple[float, ...] = KAPPAS
    hmc: phi4_reference.Setting = field(default_factory=phi4_reference.Setting)
    copies: int = 4
    widths: tuple[int, ...] = (128, 128, 24, 24, 16)
    depths: tuple[int, ...] = (3, 3, 2, 2, 2)
    epochs: tuple[int, ...] = (30, 30, 30, 15, 8)
    batch_size: int = 64
    learning_rate: float = 3e-3
    num_draws: int = 4000
    num_steps: int = 40
    mala_kappas: tuple[float, ...] = (0.34,)
    mala_draws: int = 1000
    mala_steps: int = 100

    @property
    def levels(self) -> int:
        """Scales of details."""
        return len(self.widths) - 1


QUICK = Setting(
    length=16, kappas=(0.34,), hmc=phi4_reference.QUICK, copies=20, widths=(64, 64, 16, 16), depths=(2, 2, 2, 2),
    epochs=(10, 10, 8, 4), num_draws=1000, num_steps=25, mala_draws=300, mala_steps=60,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------
# Training and sampling
# ---------------------------------------------------------------------------------------------------------------------


def augmented(fields: np.ndarray, copies: int, seed: int) -> np.ndarray:
    """Images of square fields under random symmetries of the model: sign, shift, reflections, transposition.

    Arguments:
        fields: (n, L, L).
        copies: images of each.
        seed: of the choice.

    Returns:
        (copies * n, L, L); each image has the law of the model if the fields have.
    """
    rng = np.random.default_rng(seed)
    num, length = copies * len(fields), fields.shape[1]
    rows, columns = (
        rng.choice([-1, 1], (num, 1)) * np.arange(length) + rng.integers(length, size=(num, 1)) for _ in range(2)
    )
    source = np.tile(np.arange(len(fields)), copies)
    images = fields[source[:, None, None], (rows % length)[:, :, None], (columns % length)[:, None, :]]
    turned = rng.random(num) < 0.5
    images[turned] = images[turned].transpose(0, 2, 1)
    return images * rng.choice(np.array([-1, 1], fields.dtype), (num, 1, 1))


def learned(target: ss.LatticePhi4, fields: np.ndarray, setting: Setting, checkpoint: Path) -> ss.WaveletPath:
    """The path from coarse to fine, learned from fields of the reference."""
    data = augmented(fields, setting.copies, 0)
    place = {(setting.length >> setting.levels): [0]}
    for level in range(setting.levels):
        place.setdefault(setting.length >> (setting.levels - level), []).append(level + 1)

    def network(shape: tuple[int, ...], known: tuple[int, ...] | None, key: Array) -> Any:
        stage = place[shape[-1]][0 if known is None else -1]
        width, depth = setting.widths[stage], setting.depths[stage]
        if shape[-1] ** 2 <= MANY_SITES and (known is None or shape[-1] == 2):
            return ss.nn.ResidualMLP(
                int(np.prod(shape)), width=width, depth=depth, condition_size=None if known is None else shape[-1] ** 2,
                key=key,
            )  # fmt: skip
        return ss.nn.ResidualConv(
            2, width=width, blocks=depth, channels=None if known is None else 3,
            condition_channels=0 if known is None else 1, periodic=True, key=key,
        )  # fmt: skip

    return ss.fit_wavelet(
        data, scores=np.asarray(_scores(target, jnp.asarray(data))), key=jax.random.key(1), wavelet="haar",
        levels=setting.levels, network=network, num_epochs=setting.epochs, batch_size=setting.batch_size,
        learning_rate=setting.learning_rate, ema_decay=0.995, validation_fraction=0.05, patience=None,
        checkpoint=checkpoint,
    )  # fmt: skip


@eqx.filter_jit
def _scores(target: ss.LatticePhi4, fields: Array) -> Array:
    return jax.vmap(target)(fields)


@eqx.filter_jit
def _noised_scores(stage: Any, details: Array, low: Array, t: Array) -> Array:
    return jax.vmap(lambda d, x: stage.given(x)(stage.process.alpha(t) * d, t))(details, low)


def score_error(path: ss.WaveletPath, target: ss.LatticePhi4, fields: np.ndarray) -> float:
    """Relative error of the finest learned score at little noise.

    Without noise ``p(d | x_1)`` is proportional to ``exp(-S)``, so the score is the part of the model's own along the
    finest details.
    """
    values = jnp.asarray(fields)
    low, details = path.transform.split(values)
    stage = path.stages[-1]
    t = jnp.asarray(stage.process.time(jnp.asarray(-np.log(CHECKED_NOISE), values.dtype)), values.dtype)
    found = stage.process.alpha(t) * _noised_scores(stage, details, low, t)
    exact = path.transform.split(_scores(target, values))[1]
    return float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2)))


def sampler_of(name: str, setting: Setting) -> Any:
    """The sampler and how many fields it draws."""
    if name == "MALA":
        return ss.ParallelMALA(num_steps=setting.mala_steps), setting.mala_draws
    return ss.ReverseSDE(num_steps=setting.num_steps), setting.num_draws


# ---------------------------------------------------------------------------------------------------------------------
# Measurements
# ---------------------------------------------------------------------------------------------------------------------


class Gap(NamedTuple):
    """An observable of the draws beside the reference's: values, standard errors."""

    found: float
    found_se: float
    reference: float
    reference_se: float

    @property
    def errors(self) -> float:
        """The gap in standard errors of both together."""
        return (self.found - self.reference) / float(np.hypot(self.found_se, self.reference_se))

    @property
    def percent(self) -> float:
        """The gap relative to the reference."""
        return 100 * (self.found / self.reference - 1)


def gaps(series: dict[str, np.ndarray], reference: Reference) -> dict[str, Gap]:
    """Observables of independent draws, (1, draw, ...), beside those of the reference."""

    def of(values: np.ndarray, value: float, error: float) -> Gap:
        return Gap(float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)), value, error)

    found = {}
    for name in ("|m|", "action per site", "phi^2"):
        each = reference.estimates[name]
        found[name] = of(series[name], each.value, each.standard_error)
    values, errors = reference.curves["two-point function"]
    for r in DISTANCES:
        if r < len(values):
            found[f"C({r})"] = of(series["two-point function"][..., r], float(values[r]), float(errors[r]))
    return found


def bins_of(values: np.ndarray) -> np.ndarray:
    """Edges of bins that hold equal shares of the values."""
    edges = np.quantile(values, np.linspace(0, 1, NUM_BINS + 1))
    edges[0], edges[-1] = 0.0, np.inf
    return edges


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of the values in each bin."""
    return np.histogram(values, edges)[0] / values.size


def variation(draws: np.ndarray, chains: np.ndarray) -> tuple[float, float, float]:
    """Total variation between binned draws and binned chains, and its mean and quantile if both had one law.

    Arguments:
        draws: independent values.
        chains: (chain, draw) values of the reference, which also stand for the law.

    Returns:
        The distance; its mean, and its quantile at three standard errors, where chains are drawn from the chains with
        replacement and as many exact draws as there are from them all.
    """
    edges = bins_of(chains)
    law = shares(chains, edges)
    rows = np.array([shares(chain, edges) for chain in chains])
    rng = np.random.default_rng(0)
    again = rows[rng.integers(len(rows), size=(NUM_RESAMPLED, len(rows)))].mean(axis=1)
    exact = rng.multinomial(draws.size, law, size=NUM_RESAMPLED) / draws.size
    null = 0.5 * np.abs(again - exact).sum(axis=1)
    return (
        float(0.5 * np.abs(shares(draws, edges) - law).sum()), float(null.mean()),
        float(np.quantile(null, NULL_QUANTILE)),
    )  # fmt: skip


def measure(kappa: float, number: int, setting: Setting, cache: Path, folder: Path) -> dict[str, Any]:
    """Everything that is shown of one coupling."""
    target = ss.LatticePhi4((setting.length, setting.length), kappa)
    reference = hmc_reference(target, jax.random.key(number), setting=setting.hmc, cache=cache)
    path = learned(target, reference.fields, setting, folder)
    size = reference.estimates["|m|"]
    burn_in = setting.hmc.num_burn_in * setting.hmc.num_chains * setting.hmc.num_integration_steps
    cell: dict[str, Any] = {
        "hmc": {
            "evaluations": reference.num_evaluations + burn_in, "seconds": reference.seconds, "steps": size.steps,
            "evaluations per independent": size.evaluations,
            "seconds per independent": reference.seconds * size.evaluations / reference.num_evaluations,
            "acceptance": reference.acceptance, "r_hat": max(e.r_hat for e in reference.estimates.values()),
            "fields": len(reference.fields),
        },
        "training": {
            "seconds": sum(stage.record.seconds for stage in path.stages),
            "stages": [
                {
                    "name": name, "seconds": stage.record.seconds, "parameters": stage.record.num_parameters,
                    "epoch": stage.record.best_epoch + 1, "loss": stage.record.best_loss,
                }
                for name, stage in zip(path.stage_names(), path.stages, strict=True)
            ],
        },
        "score error": score_error(path, target, reference.fields[::5]),
        "samplers": {},
        "|m|": np.abs(reference.series["m"]).reshape(-1)[::10].tolist(),
        "curves": {name: [part.tolist() for part in pair] for name, pair in reference.curves.items()},
        "wavenumbers": reference.wavenumbers.tolist(),
        "fields": reference.fields[:: len(reference.fields) // NUM_SHOWN][:NUM_SHOWN].tolist(),
    }  # fmt: skip
    for name in SAMPLERS:
        if name == "MALA" and kappa not in setting.mala_kappas:
            continue
        sampler, num = sampler_of(name, setting)
        draws = ss.sample(path, sampler, key=jax.random.key(2), num_chains=1, num_samples=num, batch_size=min(num, 500))
        fields = np.asarray(draws.position)
        series = observables(target, jnp.asarray(fields))
        cell["samplers"][name] = {
            "gaps": {what: list(gap) for what, gap in gaps(series, reference).items()},
            "variation": variation(np.abs(series["m"]).ravel(), np.abs(reference.series["m"])),
            "seconds": draws.seconds - draws.info["compile_seconds"], "draws": num, "nfe": draws.nfe,
            "full size nfe": draws.info["full_size_nfe"],
            "checks": [check.name for check in draws.info["checks"] if not check.passed],
            "|m|": np.abs(series["m"]).ravel().tolist(),
            "curves": {
                what: [series[what].mean(axis=(0, 1)).tolist(),
                       (series[what].std(axis=(0, 1), ddof=1) / np.sqrt(num)).tolist()]
                for what in ("two-point function", "spectrum")
            },
            "fields": fields[0, :NUM_SHOWN].tolist(),
        }  # fmt: skip
    return cell

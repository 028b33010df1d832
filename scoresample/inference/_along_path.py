"""Draws of a path: particles that went along it, and what is known about their run."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.checks import conservative_checks, measure_start, moves_check, short_chain_checks, start_check
from scoresample.inference._draws import Draws
from scoresample.inference._durable import stored_particles
from scoresample.inference._outputs import ParticleBuffer
from scoresample.inference._particles import run_particles
from scoresample.inference._sharding import block_size
from scoresample.paths import (
    AbstractPerturbedScore,
    AbstractScorePath,
    EmpiricalPerturbedScore,
    ReclockedScore,
    TemperedPath,
)
from scoresample.samplers import AbstractParticleSampler, AbstractPathSampler, Plan
from scoresample.scores import AbstractScore, LineIntegralDensity


def sample_particles(
    target: AbstractScore | AbstractScorePath,
    sampler: AbstractParticleSampler[Any],
    *,
    key: Array,
    num_particles: int,
    batch_size: int | None,
    plan: Any,
    mesh: Mesh | None,
    show: bool,
    label: str = "",
    store: Path | None = None,
) -> Draws:
    """Run particles from the reference of a path to its target, with checks of the start, the end and the moves.

    Arguments:
        target: a path; a score raises the sampler's own TypeError.
        sampler: the sampler.
        key: random key.
        num_particles: number of draws.
        batch_size: the most particles at a time.
        plan: the levels, or None to have the sampler make them.
        mesh: the devices, or None.
        show: whether there is a progress bar.
        label: what the bar says beside the sampler.
        store: where the draws go, or None for memory.

    Returns:
        The draws, still without their seconds and attributes.
    """
    key_plan, key_run = jax.random.split(key)
    if plan is None:
        plan = sampler.plan(target, key=key_plan)
    assert isinstance(target, AbstractScorePath)
    size = num_particles if sampler.interacting else block_size(num_particles, batch_size, mesh)
    if store is None:
        output = ParticleBuffer(num_particles, size)
    else:
        output = stored_particles(
            store, target, sampler, plan, key=key_run, num_particles=num_particles, batch_size=batch_size, mesh=mesh
        )
        size = output.store.manifest.block_size
    run_particles(
        target, sampler, plan, key=key_run, num_particles=num_particles, size=size, mesh=mesh, show=show,
        output=output, label=label,
    )  # fmt: skip
    infos, log_weights = output.infos, output.log_weights
    stats = jax.tree.map(lambda *x: np.stack(x), *[info.stats for info in infos])
    nfe = float(np.mean([info.nfe for info in infos]))
    checks = []
    short_chains = "autocorrelation_bound" in stats
    if isinstance(target, AbstractPerturbedScore) and not short_chains:
        mismatch = stats.pop("start_mismatch", None)
        if mismatch is None:
            mismatch = measure_start(target, key_plan, plan.t_start)
        checks = [start_check(float(np.max(mismatch)))]
    stop = _where_it_stopped(target, plan)
    if "least_move" in stats:
        checks.append(moves_check(float(np.min(stats["least_move"]))))
    if short_chains:
        checks += short_chain_checks(stats)
    evaluations = round(nfe * num_particles)
    if isinstance(plan, Plan):
        evaluations += int(plan.pilot_evaluations)
    facts = dict(stats)
    if log_weights is not None and isinstance(sampler, AbstractPathSampler):
        facts |= _normalising_constant(log_weights)
    draws = output.draws(
        kind="interacting" if sampler.interacting else "independent",
        info={"num_warmup": 0, "num_evaluations": evaluations, "checks": checks, **stop, **facts},
        nfe=nfe,
        seconds=0.0,
        constrain=target.constrain,
        attributes={},
    )
    if isinstance(target, TemperedPath) and isinstance(target.target, LineIntegralDensity):
        positions = jax.tree.map(lambda x: x[0], draws.position)
        checks += conservative_checks(target.target, positions, key=key_plan)
    return draws


def _where_it_stopped(target: AbstractScorePath, plan: Any) -> dict[str, float]:
    """Sigma/alpha at the last level of a noised path, and the data's smallest scale or the spacing of its points."""
    if not isinstance(target, AbstractPerturbedScore) or not isinstance(plan, Plan):
        return {}
    stop = {"noise_left": float(jnp.exp(-target.process.log_snr(plan.t_final)))}
    scale = target.smallest_scale()
    if scale is not None:
        stop["smallest_scale"] = float(scale)
    points = target.inner if isinstance(target, ReclockedScore) else target
    if isinstance(points, EmpiricalPerturbedScore) and float(points.bandwidth) < float(points.spacing):
        stop["point_spacing"] = float(points.spacing)
    return stop


def _normalising_constant(log_weights: np.ndarray) -> dict[str, float]:
    """The logarithm of the mean weight, and its standard error by the delta method."""
    largest = np.max(log_weights)
    weights = np.exp(log_weights.astype(np.float64) - largest)
    relative = np.std(weights) / np.mean(weights) / np.sqrt(weights.size)
    return {"log_z": float(largest + np.log(np.mean(weights))), "log_z_se": float(relative)}

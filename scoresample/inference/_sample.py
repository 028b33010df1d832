"""One entry for every sampler."""

import dataclasses
import functools
import json
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding
from jaxtyping import Array

from scoresample._version import __version__
from scoresample.checks import conservative_checks
from scoresample.inference._along_path import sample_particles
from scoresample.inference._cascade import sample_cascade
from scoresample.inference._chains import run_chains
from scoresample.inference._doors import check_count, check_key, check_target, score_for_chains, starts
from scoresample.inference._draws import Draws, SamplingError
from scoresample.inference._progress import compile_seconds, wants_progress
from scoresample.inference._sharding import mesh_of
from scoresample.paths import AbstractCascadedPath, AbstractScorePath
from scoresample.samplers import (
    AbstractParticleSampler,
    AbstractSampler,
    default_sampler,
    require_density,
)
from scoresample.scores import AbstractScore, LineIntegralDensity, Position

_PACKAGES = ("jax", "numpyro", "blackjax", "arviz", "equinox", "diffrax")


def sample(
    target: AbstractScore | AbstractScorePath | AbstractCascadedPath,
    sampler: AbstractSampler | AbstractParticleSampler[Any] | None = None,
    *,
    key: Array,
    num_samples: int = 1000,
    num_chains: int = 4,
    num_warmup: int = 1000,
    initial_position: Position | None = None,
    batch_size: int | None = None,
    plan: Any = None,
    throw: bool = True,
    progress: bool | None = None,
    sharding: Sharding | Sequence[Any] | None = None,
) -> Draws:
    """Draw from a density through its score, with any sampler.

    A chain sampler runs `num_chains` chains of `num_samples` draws after `num_warmup` steps; given a path, it runs on
    the path's last level. A path sampler returns ``num_chains * num_samples`` independent draws and ignores
    `num_warmup` and `initial_position`; given a cascade, such as a [`WaveletPath`][scoresample.WaveletPath], it runs on
    one stage after another: `nfe` is then the sum over stages, and ``Draws.info["stages"]`` tells of each. The same
    key, settings and `batch_size` give the same draws.

    Arguments:
        target: a score, a path from noise to it, or a cascade of paths.
        sampler: an instance of any sampler, such as ``NUTS()`` or ``ReverseSDE()``. If None, the one that suits the
            target: `NUTS` for densities, `ProbabilityFlowODE` for exact noised densities, `ReverseSDE` with ``eta=0.5``
            for learned scores, `AnnealedLangevin` for other paths. The draws' attributes say which.
        key: random key, ``jax.random.key(0)``.
        num_samples: draws of each chain.
        num_chains: number of chains.
        num_warmup: warm-up steps of each chain, not kept.
        initial_position: one start for all chains, or one for each with a leading axis. Needed only where the target
            does not know where to start.
        batch_size: run at most this many chains or particles at a time, to bound memory.
        plan: the levels of a path sampler, from ``sampler.plan(path, key=key)``, for a cascade a sequence of them, one
            for each stage; made here if None.
        throw: raise a `SamplingError` with the draws attached when draws are not finite or a solver failed.
        progress: show a progress bar; by default only on a terminal.
        sharding: run blocks of chains or particles on these devices at once: any `jax.sharding.Sharding`, or a list
            such as ``jax.devices()``. Without `batch_size` each device gets an equal block; with it the draws are those
            of a single device.

    Returns:
        The draws, with statistics and facts of the run.

    Raises:
        TypeError: if the target does not suit the sampler; the message names the way out.
        ValueError: if a setting or a start is wrong.
        SamplingError: under `throw`, if draws are not finite or a solver failed.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> density = ss.Gaussian(jnp.zeros(2), 1.0)
        >>> draws = ss.sample(
        ...     density,
        ...     ss.ULA(0.1),
        ...     key=jax.random.key(0),
        ...     num_samples=10,
        ...     num_warmup=10,
        ...     initial_position=jnp.zeros(2),
        ... )
        >>> draws.position.shape
        (4, 10, 2)
    """
    key = check_key(key)
    num_samples = check_count("num_samples", num_samples, 1, "Zero draws say nothing about a density.")
    num_chains = check_count("num_chains", num_chains, 1)
    num_warmup = check_count("num_warmup", num_warmup, 0)
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size, 1)
    check_target(target)
    started, compiled = time.perf_counter(), compile_seconds()
    by_default = sampler is None
    if sampler is None:
        sampler = default_sampler(target)
    show, mesh = wants_progress(progress), mesh_of(sharding)
    match sampler:
        case AbstractSampler():
            if plan is not None:
                raise ValueError(f"`plan` is for path samplers; {type(sampler).__name__} runs chains.")
            draws = _sample_chains(
                target, sampler, key, num_samples, num_chains, num_warmup, initial_position, batch_size, mesh, show
            )
        case AbstractParticleSampler():
            if initial_position is not None:
                raise ValueError(
                    f"`initial_position` is for chains; {type(sampler).__name__} starts from the path's own reference."
                )
            settings: dict[str, Any] = {
                "key": key, "num_particles": num_samples * num_chains, "batch_size": batch_size, "plan": plan,
                "mesh": mesh, "show": show,
            }  # fmt: skip
            if isinstance(target, AbstractCascadedPath):
                draws = sample_cascade(target, sampler, **settings)
            else:
                draws = sample_particles(target, sampler, **settings)
            draws.attributes.update(_attributes(sampler, target))
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(  # pyright: ignore[reportUnreachable]
                f"`sampler` must be an instance of a sampler, such as NUTS() or ReverseSDE(), got {sampler!r}."
            )
    draws.attributes["sampler_chosen"] = "by default" if by_default else "by name"
    draws.info["compile_seconds"] = compile_seconds() - compiled
    draws = dataclasses.replace(draws, seconds=time.perf_counter() - started)
    if throw:
        _raise_on_failure(draws)
    return draws


def _sample_chains(
    target: AbstractScore | AbstractScorePath | AbstractCascadedPath,
    sampler: AbstractSampler,
    key: Array,
    num_samples: int,
    num_chains: int,
    num_warmup: int,
    initial_position: Position | None,
    batch_size: int | None,
    mesh: Mesh | None,
    show: bool,
) -> Draws:
    score = score_for_chains(target)
    if sampler.needs_density:
        require_density(sampler, score)
    key_start, key_run = jax.random.split(key)
    positions, stats, facts = run_chains(
        score,
        sampler,
        starts(score, initial_position, num_chains, key_start),
        key=key_run,
        num_samples=num_samples,
        num_warmup=num_warmup,
        batch_size=batch_size,
        mesh=mesh,
        show=show,
    )
    evaluations = facts.pop("num_evaluations")
    checks = []
    if sampler.needs_density and isinstance(score, LineIntegralDensity):
        every = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), positions)
        checks = conservative_checks(score, every, key=key_start)
    return Draws(
        position=positions,
        kind="chains",
        log_weights=None,
        stats={**stats, "non_finite": _non_finite(positions, 2)},
        info={
            "num_warmup": num_warmup,
            "num_evaluations": int(evaluations.sum() + stats["n_steps"].sum()),
            "checks": checks,
            **{f"warmup_{name}": value for name, value in facts.items()},
        },
        nfe=float(stats["n_steps"].mean()),
        seconds=0.0,
        constrain=score.constrain,
        attributes=_attributes(sampler, score),
    )


def _non_finite(positions: Position, num_axes: int) -> np.ndarray:
    flags = [~np.isfinite(x).reshape(*x.shape[:num_axes], -1).all(axis=-1) for x in jax.tree.leaves(positions)]
    return np.any(flags, axis=0)


def _raise_on_failure(draws: Draws) -> None:
    bad = draws.stats["non_finite"]
    if bad.any():
        by_chain = bad.any(axis=1)
        where = f"in chains {np.flatnonzero(by_chain).tolist()}" if draws.kind == "chains" else "of the particles"
        raise SamplingError(
            f"{int(bad.sum())} of {bad.size} draws {where} are not finite, first at draw "
            f"{int(np.argmax(bad[by_chain][0]))} of {draws.attributes['sampler']}. Take smaller steps, check that the "
            "score is finite where the sampler goes, or look at the draws: they are attached as `error.draws` (and "
            "returned under throw=False).",
            draws,
        )
    if np.any(draws.info.get("solver_failed", False)):
        raise SamplingError(
            f"the solver of {draws.attributes['sampler']} stopped before the end (most likely it reached `max_steps`). "
            "Loosen `rtol`, raise `max_steps`, or take fixed steps. The draws are attached as `error.draws`.",
            draws,
        )


def _attributes(sampler: AbstractSampler | AbstractParticleSampler[Any], target: Any) -> dict[str, Any]:
    attributes = run_attributes(type(sampler).__name__, json.dumps(settings_of(sampler)), target)
    return attributes | {
        "asymptotically_exact": int(sampler.asymptotically_exact),
        "reference": sampler.reference,
    }


def run_attributes(sampler: str, settings: str, target: Any) -> dict[str, Any]:
    """Where draws come from: sampler, settings (JSON), target, versions (JSON) and device."""
    device = jax.devices()[0]
    return {
        "sampler": sampler,
        "settings": settings,
        "target": type(target).__name__,
        "versions": _versions(),
        "device": f"{device.platform}:{device.device_kind}",
    }


@functools.cache
def _versions() -> str:
    """Versions of what draws depend on, as JSON: looked up once, since reading the packages' metadata takes long."""
    versions = {"scoresample": __version__, "python": platform.python_version()}
    return json.dumps(versions | {name: version(name) for name in _PACKAGES})


def settings_of(sampler: eqx.Module) -> dict[str, Any]:
    """A sampler's settings by name, as numbers and strings."""
    settings = {}
    for field in dataclasses.fields(sampler):
        value = getattr(sampler, field.name)
        if isinstance(value, jax.Array | np.ndarray):
            value = np.asarray(value).tolist() if jnp.size(value) <= 1 else f"array of shape {value.shape}"
        elif isinstance(value, tuple | list):
            value = [float(each) for each in value]
        elif isinstance(value, eqx.Module):
            value = " ".join(repr(value).split())
        elif not isinstance(value, int | float | str | bool | None):
            value = type(value).__name__
        settings[field.name] = value
    return settings

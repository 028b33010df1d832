"""One entry for every sampler."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding
from jaxtyping import Array

from scoresample.checks import conservative_checks, value_checks
from scoresample.inference._about import attributes_of
from scoresample.inference._along_path import sample_particles
from scoresample.inference._cascade import sample_cascade
from scoresample.inference._chains import run_chains
from scoresample.inference._doors import check_count, check_key, check_store, check_target, score_for_chains, starts
from scoresample.inference._draws import Draws, SamplingError
from scoresample.inference._durable import finish, stored_chains
from scoresample.inference._outputs import ChainBuffer
from scoresample.inference._progress import compile_seconds, wants_progress
from scoresample.inference._sharding import block_size, mesh_of
from scoresample.inference._stored_draws import StoredDraws
from scoresample.paths import AbstractCascadedPath, AbstractScorePath
from scoresample.samplers import (
    AbstractParticleSampler,
    AbstractSampler,
    default_sampler,
    require_density,
)
from scoresample.scores import AbstractDensityScore, AbstractScore, LineIntegralDensity, Position

_MOST_READ = 1000
"""Draws of each chain that are read from a store to be checked."""


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
    store: str | Path | None = None,
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
        store: a folder, such as ``"run.zarr"``, to which draws go as they are made, in pieces that are whole whatever
            happens. If it is there already, the run in it goes on where it stopped, to the same bits, on any number of
            devices; it must be of the same target, settings and versions. Chains are then written in chunks, and
            particles run in blocks of at most 65,536 unless `batch_size` says otherwise. The draws stay there until
            they are looked at; [`load`][scoresample.load] reads those that are there, also while the run goes on.

    Returns:
        The draws, with statistics and facts of the run.

    Raises:
        TypeError: if the target does not suit the sampler; the message names the way out.
        ValueError: if a setting or a start is wrong, or `store` holds another run.
        OSError: if `store` cannot be written or a part of it is damaged; what was written stays.
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
    place = check_store(store)
    match sampler:
        case AbstractSampler():
            if plan is not None:
                raise ValueError(f"`plan` is for path samplers; {type(sampler).__name__} runs chains.")
            draws = _sample_chains(
                target, sampler, key, num_samples, num_chains, num_warmup, initial_position, batch_size, mesh, show,
                place,
            )  # fmt: skip
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
                if place is not None:
                    raise ValueError(
                        "`store`: cascades are drawn stage by stage, and each stage needs all of the one before: they "
                        "have no store. Leave it out, and save the draws with draws.to_arviz()."
                    )
                draws = sample_cascade(target, sampler, **settings)
            else:
                draws = sample_particles(target, sampler, **settings, store=place)
            draws.attributes.update(attributes_of(sampler, target))
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(  # pyright: ignore[reportUnreachable]
                f"`sampler` must be an instance of a sampler, such as NUTS() or ReverseSDE(), got {sampler!r}."
            )
    draws.attributes["sampler_chosen"] = "by default" if by_default else "by name"
    draws.info["compile_seconds"] = compile_seconds() - compiled
    # Not by a copy, which would read all draws of a store.
    object.__setattr__(draws, "seconds", time.perf_counter() - started)
    if place is not None:
        finish(place, draws)
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
    store: Path | None,
) -> Draws:
    score = score_for_chains(target)
    if sampler.needs_density:
        require_density(sampler, score)
    key_start, key_run = jax.random.split(key)
    positions = starts(score, initial_position, num_chains, key_start)
    if store is None:
        size = block_size(num_chains, batch_size, mesh)
        output = ChainBuffer(num_chains, num_samples, size)
    else:
        output = stored_chains(
            store, score, sampler, positions, key=key_run, num_samples=num_samples, num_warmup=num_warmup,
            batch_size=batch_size, mesh=mesh,
        )  # fmt: skip
        size = output.store.manifest.block_size
    run_chains(
        score, sampler, positions, key=key_run, num_samples=num_samples, num_warmup=num_warmup, size=size, mesh=mesh,
        show=show, output=output,
    )  # fmt: skip
    facts, steps, checks = dict(output.facts), output.total("n_steps"), []
    evaluations = facts.pop("num_evaluations")
    draws = output.draws(
        kind="chains",
        info={
            "num_warmup": num_warmup,
            "num_evaluations": int(evaluations.sum() + steps),
            "checks": checks,
            **{f"warmup_{name}": value for name, value in facts.items()},
        },
        nfe=steps / (num_chains * num_samples),
        seconds=0.0,
        constrain=score.constrain,
        attributes=attributes_of(sampler, score),
    )
    if sampler.needs_density and isinstance(score, LineIntegralDensity):
        checks += conservative_checks(score, _looked_at(draws), key=key_start)
    elif sampler.needs_density and isinstance(score, AbstractDensityScore):
        checks += value_checks(score, _looked_at(draws))
    return draws


def _looked_at(draws: Draws) -> Position:
    """The draws that checks choose from, with a leading axis: the last ones of a store, which may hold many."""
    position = draws.part.last(_MOST_READ).position() if isinstance(draws, StoredDraws) else draws.position
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), position)


def _raise_on_failure(draws: Draws) -> None:
    bad = draws.non_finite
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

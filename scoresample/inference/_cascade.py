"""Draws of a cascade: a run along the path of one stage after another."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.inference._along_path import sample_particles
from scoresample.inference._draws import Draws
from scoresample.paths import AbstractCascadedPath
from scoresample.samplers import AbstractParticleSampler
from scoresample.scores import Position


def sample_cascade(
    target: AbstractCascadedPath,
    sampler: AbstractParticleSampler[Any],
    *,
    key: Array,
    num_particles: int,
    batch_size: int | None,
    plan: Any,
    mesh: Mesh | None,
    show: bool,
) -> Draws:
    """Run the sampler on every stage; what stages before have drawn is each particle's condition.

    Arguments are those of [`sample_particles`][scoresample.inference._along_path.sample_particles], `plan` a sequence
    of plans or None.

    Returns:
        The draws, still without their seconds and attributes. Their checks are those of all stages, their NFE the sum.
    """
    names = target.stage_names()
    plans = _plans(plan, names)
    known, stages = None, []
    for index, name in enumerate(names):
        draws = sample_particles(
            target.stage(index, known),
            sampler,
            key=jax.random.fold_in(key, index),
            num_particles=num_particles,
            batch_size=batch_size,
            plan=plans[index],
            mesh=mesh,
            show=show,
            label=name,
        )
        if index and draws.log_weights is not None:
            raise ValueError(
                f"`sampler`: {type(sampler).__name__} weighs the draws of {name!r}. Such weights hold a constant for "
                "each condition, which would weigh the stages before. Take a sampler without weights."
            )
        # Later stages of a particle that is lost run on zeros: it is marked, and its numbers are taken out at the end.
        part = jax.tree.map(lambda x: jnp.nan_to_num(x[0], nan=0.0, posinf=0.0, neginf=0.0), draws.position)
        known = _joined(target, index, known, part)
        stages.append(draws)
    return _put_together(target, sampler, known, stages, names)


def _plans(plan: Any, names: tuple[str, ...]) -> Sequence[Any]:
    if plan is None:
        return [None] * len(names)
    if not isinstance(plan, list | tuple) or hasattr(plan, "_fields") or len(plan) != len(names):
        raise ValueError(
            f"`plan`: a cascade of {len(names)} stages takes a sequence of {len(names)} plans, one for each, from "
            "sampler.plan(path.stage(index, known), key=key) with any `known` of the right shape; or None."
        )
    return plan


@eqx.filter_jit
def _joined(target: AbstractCascadedPath, index: int, known: Position | None, part: Position) -> Position:
    if known is None:
        return jax.vmap(lambda new: target.joined(index, None, new))(part)
    return jax.vmap(lambda old, new: target.joined(index, old, new))(known, part)


def _put_together(
    target: AbstractCascadedPath,
    sampler: AbstractParticleSampler[Any],
    position: Position,
    stages: list[Draws],
    names: tuple[str, ...],
) -> Draws:
    checks = [
        dataclasses.replace(check, name=f"{check.name}, {name}")
        for name, draws in zip(names, stages, strict=True)
        for check in draws.info["checks"]
    ]
    sizes = [sum(x[0, 0].size for x in jax.tree.leaves(draws.position)) for draws in stages]
    non_finite = np.any([draws.stats["non_finite"] for draws in stages], axis=0)
    lost = non_finite[0]

    def marked(x: Array) -> np.ndarray:
        return np.where(lost.reshape(-1, *[1] * (x.ndim - 1)), np.asarray(np.nan, x.dtype), np.asarray(x))[None]

    told = [
        {"name": name, "nfe": draws.nfe, "size": size}
        | {key: value for key, value in draws.info.items() if key != "checks"}
        for name, draws, size in zip(names, stages, sizes, strict=True)
    ]
    return Draws(
        position=jax.tree.map(marked, position),
        kind="interacting" if sampler.interacting else "independent",
        log_weights=stages[0].log_weights,
        stats={"non_finite": non_finite},
        info={
            "num_warmup": 0,
            "num_evaluations": sum(draws.info["num_evaluations"] for draws in stages),
            "checks": checks,
            "stages": told,
            "full_size_nfe": sum(d.nfe * n for d, n in zip(stages, sizes, strict=True)) / sum(sizes),
            "solver_failed": any(bool(np.any(stage.get("solver_failed", False))) for stage in told),
            **_least_finished(told),
        },
        nfe=sum(draws.nfe for draws in stages),
        seconds=0.0,
        constrain=target.constrain,
        attributes={},
    )


def _least_finished(stages: list[dict[str, Any]]) -> dict[str, float]:
    """Where sampling stopped, of the stage that has the most noise left for its smallest scale."""
    stopped = [stage for stage in stages if "noise_left" in stage]
    if not stopped:
        return {}
    worst = max(stopped, key=lambda s: s["noise_left"] / s.get("smallest_scale", 1.0))
    return {name: worst[name] for name in ("noise_left", "smallest_scale", "point_spacing") if name in worst}

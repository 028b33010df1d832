"""Runs that survive: the store that a run goes to, made or found again."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.inference._about import attributes_of, versions
from scoresample.inference._chains import advance, after_warm_up
from scoresample.inference._digest import digest
from scoresample.inference._draws import Draws
from scoresample.inference._particles import check_number, run_block, split_outcome
from scoresample.inference._run_store import Manifest, RunStore
from scoresample.inference._sharding import block_size
from scoresample.inference._stored_output import StoredChains, StoredParticles, layouts, num_bytes
from scoresample.paths import AbstractScorePath, of_particles
from scoresample.samplers import AbstractParticleSampler, AbstractSampler
from scoresample.scores import AbstractScore, Position, named_sites

_CHUNKS = 20
"""Chunks of a chain, at least, ..."""
_CHUNK_BYTES = 2**24
"""... each of about this size at most."""
_PARTICLES = 2**16
"""Particles of a block, at most, where nobody says how many."""


_NOTE: ContextVar[dict[str, Any] | None] = ContextVar("note", default=None)


@contextmanager
def noted(**note: Any) -> Generator[None]:
    """Write a note into every store that is made inside: how a program that is run again finds what it had run."""
    token = _NOTE.set(note)
    try:
        yield
    finally:
        _NOTE.reset(token)


def note_of(path: Path) -> dict[str, Any] | None:
    """The note in a store, if there is one."""
    return RunStore.open(path, write=False).manifest.note


def stored_chains(
    path: Path,
    score: AbstractScore,
    sampler: AbstractSampler,
    positions: Position,
    *,
    key: Array,
    num_samples: int,
    num_warmup: int,
    batch_size: int | None,
    mesh: Mesh | None,
) -> StoredChains:
    """The store of a run of chains from these starts: made if there is none, else found to be that of this very run."""
    num_chains = jax.tree.leaves(positions)[0].shape[0]
    found = _found(path)
    size = found.manifest.block_size if found and batch_size is None else block_size(num_chains, batch_size, mesh)
    block = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), positions)
    like = after_warm_up(score, sampler, block, num_warmup, key)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), positions)
    if found is None:
        keys = jax.eval_shape(lambda key: jax.random.split(key, size), key)
        step = jax.ShapeDtypeStruct((), jnp.asarray(0).dtype)
        _, _, stats = eqx.filter_eval_shape(
            lambda sampler, states, keys, step: advance(score, sampler, states, keys, step, 1, None),
            like.sampler, like.states, keys, step,
        )  # fmt: skip
        stats = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), stats)
        groups = layouts(one, stats, score.constrain)
        draw = sum(array.num_bytes for arrays in groups.values() for array in arrays.values())
        chunk = max(min(-(-num_samples // _CHUNKS), _CHUNK_BYTES // (size * draw)), 1)
    else:
        groups, chunk = {}, found.manifest.chunk
    made_of = _made_of(score, sampler, key) | {
        "num_samples": num_samples,
        "num_chains": num_chains,
        "num_warmup": num_warmup,
        "starts": digest(positions),
    }
    manifest = Manifest(
        made_of, "chains", (num_chains, num_samples), size, chunk, list(named_sites(one)),
        attributes_of(sampler, score), {"num_warmup": num_warmup}, _NOTE.get(),
    )  # fmt: skip
    store = _checked(path, found, manifest) if found else RunStore.create(path, manifest, groups, num_bytes(like))
    return StoredChains(store, score.constrain, one, like)


def stored_particles(
    path: Path,
    target: AbstractScorePath,
    sampler: AbstractParticleSampler[Any],
    plan: Any,
    *,
    key: Array,
    num_particles: int,
    batch_size: int | None,
    mesh: Mesh | None,
) -> StoredParticles:
    """The store of a run along a path: made if there is none, else found to be that of this very run."""
    check_number(target, num_particles)
    found = _found(path)
    if sampler.interacting:
        size = num_particles
    elif found and batch_size is None:
        size = found.manifest.block_size
    else:
        size = min(block_size(num_particles, batch_size, mesh), _PARTICLES if batch_size is None else num_particles)
    block = of_particles(target, np.zeros(size, int))
    outcome = eqx.filter_eval_shape(lambda: run_block(block, sampler, plan, key, size))
    particles, info = split_outcome(*outcome)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), particles)
    stats = shapes.stats if shapes.log_weights is None else {**shapes.stats, "log_weights": shapes.log_weights}
    made_of = _made_of(target, sampler, key) | {"num_samples * num_chains": num_particles, "plan": digest(plan)}
    manifest = Manifest(
        made_of, "interacting" if sampler.interacting else "independent", (1, num_particles), size, size,
        list(named_sites(shapes.positions)), attributes_of(sampler, target), {"num_warmup": 0}, _NOTE.get(),
    )  # fmt: skip
    if found:
        store = _checked(path, found, manifest)
    else:
        groups = layouts(shapes.positions, stats, target.constrain)
        store = RunStore.create(path, manifest, groups, num_bytes(info))
    return StoredParticles(store, target.constrain, shapes.positions, info)


def finish(path: Path, draws: Draws) -> None:
    """Say in the store what is known of its run at the end."""
    store = RunStore.open(path)
    if store.outcome is None:
        info = {name: value for name, value in draws.info.items() if isinstance(value, int | float | str)}
        store.finish({"nfe": draws.nfe, "seconds": draws.seconds, "info": info})


def _found(path: Path) -> RunStore | None:
    return RunStore.open(path) if path.exists() else None


def _made_of(target: Any, sampler: Any, key: Array) -> dict[str, Any]:
    """All that draws depend on but for their numbers, starts and blocks."""
    return {
        "target": type(target).__name__,
        "numbers and functions of the target": digest(target),
        "sampler": type(sampler).__name__,
        "settings of the sampler": digest(sampler),
        "key": digest(key),
        "versions": json.loads(versions()),
        "kind of device": jax.devices()[0].platform,
        "float64": bool(jax.config.read("jax_enable_x64")),
    }


def _checked(path: Path, found: RunStore, asked: Manifest) -> RunStore:
    """The store, if it is that of the run that is asked for.

    Raises:
        ValueError: if it is not; the message says in what they differ.
    """
    stored = found.manifest
    before = {**stored.made_of, "batch_size": stored.block_size}
    now = {**asked.made_of, "batch_size": asked.block_size}
    differing = [
        f"{name} ({before.get(name, 'none')} in the store, {now.get(name, 'none')} now)"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"`store`: {path} holds another run. It differs in: {'; '.join(differing)}. Call with what it was made of "
            "to go on with it, or name a new place. It was left as it is."
        )
    return found

"""Blocks of chains or particles, one on each device."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec, Sharding

_AXIS = "blocks"


def mesh_of(sharding: Sharding | Sequence[Any] | None) -> Mesh | None:
    """A line of the devices of a sharding, or of a list of devices.

    Raises:
        TypeError: if it is neither.
    """
    if sharding is None:
        return None
    devices = sharding.device_set if isinstance(sharding, Sharding) else sharding
    try:
        line = sorted(devices, key=lambda device: device.id)
    except (TypeError, AttributeError):
        line = []
    if not line:
        raise TypeError(
            "`sharding` must be a jax.sharding.Sharding or a list of devices such as jax.devices(), got "
            f"{type(sharding).__name__}."
        )
    return Mesh(np.array(line), (_AXIS,))


def num_devices(mesh: Mesh | None) -> int:
    """How many blocks run at a time."""
    return 1 if mesh is None else mesh.devices.size


def block_size(num: int, batch_size: int | None, mesh: Mesh | None) -> int:
    """How many chains or particles make a block: as asked, else an equal part for every device."""
    return min(-(-num // num_devices(mesh)) if batch_size is None else batch_size, num)


def placed(tree: Any, device: Any) -> Any:
    """A tree with all its arrays on a device."""
    return jax.tree.map(lambda x: jax.device_put(x, device) if eqx.is_array(x) else x, tree)


def on_devices(fn: Callable[[Any, Any], Any], mesh: Mesh, shared: Any, blocks: Any) -> Any:
    """``fn(shared, block)`` for every block, each on a device of its own.

    Every device runs the program that a single device would run for its block, so draws do not depend on the number
    of devices; loops of one block never wait for another's.

    Arguments:
        fn: what to do with a block.
        mesh: the line of devices.
        shared: a tree that all devices see whole.
        blocks: a tree of arrays whose leading axis is that of the blocks, as long as the line of devices.

    Returns:
        The outcomes, with a leading block axis on all arrays.
    """
    arrays, static = eqx.partition(shared, eqx.is_array)
    leftovers = []

    def one(arrays: Any, block: Any) -> Any:
        outcome = fn(eqx.combine(arrays, static), jax.tree.map(lambda x: x[0], block))
        computed, rest = eqx.partition(outcome, eqx.is_array)
        leftovers.append(rest)
        return jax.tree.map(lambda x: x[None], computed)

    split = PartitionSpec(_AXIS)
    computed = jax.shard_map(one, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False)(
        arrays, blocks
    )
    return eqx.combine(computed, leftovers[0])

"""What `fit_score` accepts as data: arrays, trees of arrays, draws, or batches that come one after another."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import Constrain, DrawsLike, Position, Support, as_support, named_sites

Standardise = Literal["coordinates", "arrays", "none"]
"""What shares a mean and a standard deviation."""

_FEWEST_DRAWS = 50
_FEWEST_HELD_OUT = 10


class Frame64(NamedTuple):
    """The standardisation, in double precision on the host.

    Attributes:
        location: the mean that is subtracted, a tree like a position.
        scale: the standard deviation by which is divided, likewise.
    """

    location: Position
    scale: Position


class Points(NamedTuple):
    """Standardised points as vectors.

    Attributes:
        points: the points, (n, d).
        scores: the scores of the clean density there, or None.
        held_out: which of them are held out, (n,).
        conditions: what belongs to each, standardised, (n, m), or None.
    """

    points: np.ndarray
    scores: np.ndarray | None
    held_out: np.ndarray
    conditions: np.ndarray | None = None

    def taken(self, rows: np.ndarray) -> "Points":
        """Some of the points."""
        scores, conditions = (None if part is None else part[rows] for part in (self.scores, self.conditions))
        return Points(self.points[rows], scores, self.held_out[rows], conditions)


class Stream:
    """Batches from an iterator, joined to buffers of one size.

    Attributes:
        size: points in a buffer.
    """

    size: int

    def __init__(self, data: Iterator[Any] | Callable[[], Any], size: int) -> None:
        """Open a stream: an iterator, read once, or a function that opens it anew each time."""
        self.size = size
        self._open = None if isinstance(data, Iterator) else data
        self._batches: Iterator[Any] = data if isinstance(data, Iterator) else iter(data())
        self._left: Any = None
        self._started = False

    def pull(self, skip: int = 0) -> Any:
        """The next buffer, or None at the end.

        The first buffer is whatever the stream holds, if that is less. Later ones are full; a stream that can be opened
        anew goes on from its beginning, without its first `skip` points.
        """
        parts, have, opened = ([], 0, False) if self._left is None else ([self._left], _length(self._left), False)
        while have < self.size:
            batch = next(self._batches, None)
            if batch is None:
                if self._open is None or opened or not self._started:
                    break
                self._batches, opened = iter(self._open()), True
                batch = _drop(self._batches, skip)
                if batch is None:
                    break
            parts.append(jax.tree.map(np.asarray, batch))
            have += _length(batch)
            opened = opened and _length(batch) == 0
        if not parts and not self._started:
            raise ValueError("`data`: the iterator gave no batches.")
        if self._started and have < self.size:
            return None
        self._started = True
        try:
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        except ValueError as error:
            raise ValueError(
                f"`data`: batches must be trees of arrays of one shape but for their length: {error}"
            ) from error
        self._left = jax.tree.map(lambda x: x[self.size :], joined) if have > self.size else None
        return jax.tree.map(lambda x: x[: self.size], joined)


def _drop(batches: Iterator[Any], number: int) -> Any:
    """What is left of the batch in which the first `number` points end, or None if there are no more."""
    for batch in batches:
        length = _length(batch)
        if length > number:
            return jax.tree.map(lambda x, n=number: np.asarray(x)[n:], batch)
        number -= length
    return None


class Source:
    """Where points come from: all at once, or one buffer after another.

    Attributes:
        constrain: position -> named sites.
        frame: the standardisation, from the first points.
        first: the first points (all of them, where they fit into memory).
        position: one position, for its tree, shapes and dtypes.
        streams: whether more points come.
        condition: one condition, for its tree and shapes, or None.
        condition_frame: the standardisation of conditions, or None.
    """

    constrain: Constrain
    frame: Frame64
    first: Points
    position: Position
    streams: bool
    condition: Any
    condition_frame: Frame64 | None

    def __init__(
        self,
        data: Any,
        scores: Any,
        key: Array,
        support: Any,
        standardise: Standardise,
        buffer_size: int,
        validation_fraction: float,
        conditions: Any = None,
        standardise_conditions: Standardise = "coordinates",
    ) -> None:
        """Open data; see [`fit_score`][scoresample.fit_score] for what they may be.

        Held out are random points; of chains the last draws, since neighbours are alike; of weighted draws random ones
        before the others are resampled, so that no point is on both sides; of a stream its first points.

        Raises:
            TypeError: if `data` holds no arrays of numbers.
            ValueError: if there are too few draws, lengths differ, values are not finite, lie outside of the support
                or never vary, or conditions come beside weighted draws or batches.
        """
        self.constrain = named_sites
        self._support: Support | None = None
        self._standardise: Standardise = standardise
        self._given = type(data).__name__
        self._stream: Stream | None = None
        self._paired = isinstance(conditions, str)
        if isinstance(conditions, str) and conditions != "paired":
            raise ValueError(f'`conditions` must be arrays, or "paired" beside batches, got {conditions!r}.')
        if isinstance(data, DrawsLike):
            self.constrain = data.constrain
            if support is not None:
                raise ValueError("`support`: draws already live in unbounded coordinates. Leave it out.")
        elif isinstance(data, Iterator) or (callable(data) and not isinstance(data, np.ndarray | jax.Array)):
            if scores is not None:
                raise ValueError("`scores` are taken beside arrays or draws only, not beside batches.")
            if conditions is not None and not self._paired:
                raise ValueError(
                    "`conditions` are taken beside arrays or draws only, not beside batches: which condition belongs "
                    "to which point of a stream cannot be told. Pass all points and all conditions as arrays, or "
                    'batches of pairs (points, conditions) and conditions="paired".'
                )
            self._stream = Stream(data, buffer_size)
        self.streams = self._stream is not None
        if self._stream is not None:
            tree = self._stream.pull()
            if self._paired:
                tree, conditions = _pair(tree)
            num = _length(tree)
            held_out = np.arange(num) < max(int(validation_fraction * num), _FEWEST_HELD_OUT)
            self._stream.size = num - int(held_out.sum())
        else:
            if self._paired:
                raise ValueError('`conditions="paired"` is for batches of pairs (points, conditions).')
            conditions = as_rows(conditions, data)
            tree, scores, held_out = _gather(data, scores, key, validation_fraction)
        self._check(tree, scores)
        if support is not None:
            dtype = jnp.asarray(0.0).dtype
            self._support = as_support(support, jax.tree.map(lambda x: jnp.asarray(x[0], dtype), tree))
            self.constrain = self._support
            tree, scores = self._unbound(tree, scores)
        self._check_spread(tree)
        self.frame = _standardisation(tree, standardise)
        self.position = jax.tree.map(lambda x: jnp.asarray(x[0], jnp.asarray(0.0).dtype), tree)
        self.first = self._standard(tree, scores, held_out)
        self.condition, self.condition_frame = None, None
        if conditions is not None:
            check_conditions(conditions, len(held_out))
            self.condition = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], jnp.asarray(0.0).dtype), conditions)
            self.condition_frame, rows = standard_conditions(conditions, standardise_conditions)
            self.first = self.first._replace(conditions=rows)

    def more(self) -> Points | None:
        """As many points of a stream as the first buffer had to train on, or None where it has ended.

        Raises:
            ValueError: if a batch does not look like the first, or holds values that are not finite.
        """
        assert self._stream is not None
        tree = self._stream.pull(int(self.first.held_out.sum()))
        if tree is None:
            return None
        known = None
        if self._paired:
            tree, conditions = _pair(tree)
            check_conditions(conditions, _length(tree))
            assert self.condition_frame is not None
            known = conditions_in(self.condition_frame, conditions)
        self._check(tree, None)
        return self._standard(*self._unbound(tree, None), np.zeros(_length(tree), bool))._replace(conditions=known)

    def _check(self, tree: Any, scores: Any) -> None:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        if not leaves or not all(np.issubdtype(leaf.dtype, np.number) for _, leaf in leaves):
            raise TypeError(
                "`data` must be an array, a tree of arrays with one leading axis, an iterator of such batches, or "
                f"Draws, got {self._given}."
            )
        lengths = {leaf.shape[0] if leaf.ndim else 0 for _, leaf in leaves}
        if len(lengths) != 1 or lengths.pop() < _FEWEST_DRAWS:
            raise ValueError(
                f"`data` needs one leading axis of at least {_FEWEST_DRAWS} draws, shared by all arrays; the shapes "
                f"are {[leaf.shape for _, leaf in leaves]}. A score learned from fewer points only remembers them."
            )
        for path, leaf in leaves:
            if not np.isfinite(leaf).all():
                count = int((~np.isfinite(leaf)).sum())
                raise ValueError(f"`data`: {count} values of {_label(path)} are not finite. Drop them.")
        if scores is not None:
            _check_scores(scores, tree)

    def _check_spread(self, tree: Any) -> None:
        if self._standardise == "none":
            return
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if self._standardise == "arrays":
                if leaf.min() == leaf.max():
                    raise ValueError(f"`data`: {_label(path)} is {leaf.min()} everywhere. It has no density: drop it.")
                continue
            constant = leaf.astype(np.float64).std(axis=0) <= 1e-7 * np.abs(leaf).max(axis=0)
            if np.any(constant):
                raise ValueError(
                    f"`data`: {int(np.sum(constant))} coordinates of {_label(path)} never vary. They have no density: "
                    'drop them, or, for images with an empty border, pass standardise="arrays".'
                )

    def _unbound(self, tree: Any, scores: Any) -> tuple[Any, Any]:
        """Bounded data in the unbounded coordinates in which they are learned, in double precision."""
        if self._support is None:
            return tree, scores
        with jax.enable_x64(True):
            support = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), self._support)
            bounded = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)
            moved = jax.vmap(support.to_unbounded)(bounded)
            for path, leaf in jax.tree_util.tree_leaves_with_path(moved):
                outside = int(np.sum(~np.isfinite(np.asarray(leaf))))
                if outside:
                    raise ValueError(
                        f"`data`: {outside} values of {_label(path)} lie on or outside of the bounds of `support`. "
                        "Drop them, or widen the bounds."
                    )
            if scores is not None:
                scores = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), scores)
                scores = jax.vmap(support.score_to_unbounded)(moved, scores)
            return jax.tree.map(np.asarray, (moved, scores))

    def _standard(self, tree: Any, scores: Any, held_out: np.ndarray) -> Points:
        location, scale = self.frame
        z = jax.tree.map(lambda x, m, s: _rows((x.astype(np.float64) - m) / s), tree, location, scale)
        if scores is not None:
            scores = jax.tree.map(lambda g, s: _rows(g * s), scores, scale)
            scores = np.concatenate(jax.tree.leaves(scores), axis=1)
        return Points(np.concatenate(jax.tree.leaves(z), axis=1), scores, held_out)


def _gather(data: Any, scores: Any, key: Array, fraction: float) -> tuple[Any, Any, np.ndarray]:
    """A tree of arrays with one leading axis of draws, the scores beside it, and which draws are held out."""
    key_split, key_kept, key_held_out = gathering_keys(key)
    if not isinstance(data, DrawsLike):
        tree, scores = jax.tree.map(np.asarray, (data, scores))
        return tree, scores, random_rows(key_split, _length(tree), fraction)
    num_chains, num_draws = jax.tree.leaves(data.position)[0].shape[:2]
    tree, scores = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), (data.position, scores))
    if data.kind == "chains" and fraction * num_draws >= 1:
        each = max(int(fraction * num_draws), -(-_FEWEST_HELD_OUT // num_chains))
        held_out = np.tile(np.arange(num_draws) >= num_draws - each, num_chains)
    else:
        held_out = random_rows(key_split, num_chains * num_draws, fraction)
    if data.log_weights is not None:
        logits = jnp.ravel(jnp.asarray(data.log_weights))
        sides = ((key_kept, np.flatnonzero(~held_out)), (key_held_out, np.flatnonzero(held_out)))
        rows = [side[np.asarray(jax.random.categorical(k, logits[side], shape=side.shape))] for k, side in sides]
        held_out = np.arange(len(held_out)) >= len(rows[0])
        tree, scores = jax.tree.map(lambda x: x[np.concatenate(rows)], (tree, scores))
    return tree, scores, held_out


def gathering_keys(key: Array) -> Array:
    """Keys of the rows that are held out, and of the draws among the ones and the others."""
    return jax.random.split(key, 3)


def random_rows(key: Array, num: int, fraction: float) -> np.ndarray:
    """Random rows to hold out."""
    order = np.asarray(jax.random.permutation(key, num))
    return order < max(int(fraction * num), _FEWEST_HELD_OUT)


def _standardisation(tree: Any, standardise: Standardise) -> Frame64:
    def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = x.astype(np.float64)
        if standardise == "coordinates":
            return np.asarray(x.mean(axis=0)), np.asarray(x.std(axis=0))
        mean, spread = (x.mean(), x.std()) if standardise == "arrays" else (0.0, 1.0)
        return np.full(x.shape[1:], mean), np.full(x.shape[1:], spread)

    leaves, structure = jax.tree.flatten(tree)
    columns = zip(*(moments(leaf) for leaf in leaves), strict=True)
    return Frame64(*(jax.tree.unflatten(structure, list(column)) for column in columns))


def as_rows(conditions: Any, data: Any) -> Any:
    """Conditions as arrays with one leading axis, also where they came with those of draws, (chains, draws).

    Raises:
        ValueError: if the draws have weights.
    """
    if conditions is None:
        return None
    conditions = jax.tree.map(np.asarray, conditions)
    if not isinstance(data, DrawsLike):
        return conditions
    if data.log_weights is not None:
        raise ValueError(
            "`conditions`: these draws are weighted, and are resampled to be trained on. Resample draws and conditions "
            "alike, and pass both as arrays."
        )
    axes = jax.tree.leaves(data.position)[0].shape[:2]
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]) if x.shape[:2] == axes else x, conditions)


def check_conditions(conditions: Any, number: int) -> None:
    """Raise unless conditions are finite real numbers with a leading axis of one for each point.

    Raises:
        TypeError: if they are no arrays of real numbers.
        ValueError: if their number is another, or one is not finite.
    """
    leaves = jax.tree_util.tree_leaves_with_path(conditions)
    if not leaves or not all(_is_real(leaf) for _, leaf in leaves):
        raise TypeError(
            "`conditions` must be an array of real numbers, or a tree of such arrays, with one leading axis, got "
            f"{[leaf.dtype.name for _, leaf in leaves]}. Turn labels into columns of zeros and ones."
        )
    if any(leaf.shape[:1] != (number,) for _, leaf in leaves):
        raise ValueError(
            f"`conditions` must have one for each point of `data`, {number} along the leading axis; the shapes are "
            f"{[leaf.shape for _, leaf in leaves]}."
        )
    for path, leaf in leaves:
        if not np.isfinite(leaf).all():
            count, where = int((~np.isfinite(leaf)).sum()), jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"`conditions`: {count} values{where and f' of {where}'} are not finite. Drop those rows.")


def standard_conditions(conditions: Any, standardise: Standardise) -> tuple[Frame64, np.ndarray]:
    """The standardisation of conditions, in the precision of the score, and the standardised rows, (n, m).

    What never varies is told all the same: it has the scale 1.
    """
    frame = _standardisation(conditions, standardise)
    varies = jax.tree.map(lambda s, m: s > 1e-7 * np.abs(m), frame.scale, frame.location)
    scale = jax.tree.map(lambda s, ok: np.where(ok, s, 1.0), frame.scale, varies)
    dtype = jnp.asarray(0.0).dtype
    location, scale = jax.tree.map(lambda x: x.astype(dtype).astype(np.float64), (frame.location, scale))
    frame = Frame64(location, scale)
    return frame, conditions_in(frame, conditions)


def conditions_in(frame: Frame64, conditions: Any) -> np.ndarray:
    """Conditions as standardised rows, (n, m)."""
    rows = jax.tree.map(lambda x, m, s: _rows((x.astype(np.float64) - m) / s), conditions, *frame)
    return np.concatenate(jax.tree.leaves(rows), axis=1)


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise ValueError(f"`data`: batches must be pairs (points, conditions), got {type(batch).__name__}.")
    return batch


def _is_real(leaf: np.ndarray) -> bool:
    return any(np.issubdtype(leaf.dtype, kind) for kind in (np.floating, np.integer, np.bool_))


def _check_scores(scores: Any, tree: Any) -> None:
    shapes = [[leaf.shape for leaf in jax.tree.leaves(t)] for t in (scores, tree)]
    if jax.tree.structure(scores) != jax.tree.structure(tree) or shapes[0] != shapes[1]:
        raise ValueError(
            f"`scores` must look like `data`, with a score for every draw; the shapes are {shapes[0]} and {shapes[1]}."
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scores)):
        raise ValueError("`scores`: some are not finite. Leave those draws out, or leave `scores` out.")


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], -1)


def _length(batch: Any) -> int:
    return max((np.shape(leaf)[0] if np.ndim(leaf) else 1 for leaf in jax.tree.leaves(batch)), default=0)


def _label(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "data"

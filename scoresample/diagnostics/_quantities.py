"""The scalars of a run that are worth comparing: coordinates of the position, and derived sites."""

from collections.abc import Mapping

import numpy as np

from scoresample.inference import Draws
from scoresample.scores import named_sites

Values = Mapping[str, np.ndarray]
"""Named scalars, each an array of shape (chain, draw)."""

_CONSTANT_ULPS = 8
"""A derived entry whose range is below this many units in the last place is taken for a constant."""


def quantities(draws: Draws) -> dict[str, np.ndarray]:
    """Name every scalar of a run that is worth comparing.

    These are all coordinates of the position, in the space that the sampler moved in, then every entry of the
    deterministic sites. A coordinate whose named site was constrained (a positive scale, a simplex) is labelled
    ``tau (unconstrained)``; any other has the plain name of its site. Derived entries that never change, such as the
    diagonal of a correlation matrix, are left out: there is nothing to compare.

    Arguments:
        draws: any run.

    Returns:
        Arrays of shape (chain, draw) and dtype float64, by name. The coordinates come first, in the order of
        `jax.flatten_util.ravel_pytree`.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> target = ss.Gaussian(jax.numpy.zeros(2), jax.numpy.eye(2))
        >>> start = jax.numpy.zeros(2)
        >>> draws = ss.sample(target, ss.ULA(step_size=0.5), key=jax.random.key(0), initial_position=start)
        >>> {name: value.shape for name, value in quantities(draws).items()}
        {'x[0]': (4, 1000), 'x[1]': (4, 1000)}
    """
    sites = {name: np.asarray(value) for name, value in draws.sites().items()}
    found: dict[str, np.ndarray] = {}
    names = set()
    for path, leaf in _leaves(draws):
        name = path if path in sites else next((other for other in sites if _same(sites[other], leaf)), path)
        names.add(name)
        site = sites.get(name)
        constrained = site is not None and not _same(site, leaf)
        found |= _entries(name, leaf, " (unconstrained)" if constrained else "")
    for name, value in sites.items():
        if name not in names:
            entries = _entries(name, value, "")
            found |= {label: entry for label, entry in entries.items() if not _constant(entry, value.dtype)}
    return found


def coordinates(draws: Draws) -> np.ndarray:
    """All coordinates of the positions side by side.

    Arguments:
        draws: any run.

    Returns:
        An array of shape (chain, draw, dimension) and dtype float64; the last axis has the order of
        `jax.flatten_util.ravel_pytree`.
    """
    flat = [leaf.reshape(*leaf.shape[:2], -1) for _, leaf in _leaves(draws)]
    return np.concatenate(flat, axis=-1).astype(np.float64)


def _leaves(draws: Draws) -> list[tuple[str, np.ndarray]]:
    return [(name, np.asarray(leaf)) for name, leaf in named_sites(draws.position).items()]


def _same(site: np.ndarray, leaf: np.ndarray) -> bool:
    return site.shape == leaf.shape and np.allclose(site, leaf, rtol=1e-5, atol=1e-6, equal_nan=True)


def _entries(name: str, value: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
    labels = [name + (f"[{', '.join(map(str, index))}]" if index else "") for index in np.ndindex(value.shape[2:])]
    columns = np.moveaxis(value.reshape(*value.shape[:2], -1), -1, 0).astype(np.float64)
    return {label + suffix: column for label, column in zip(labels, columns, strict=True)}


def _constant(entry: np.ndarray, dtype: np.dtype) -> bool:
    if not np.all(np.isfinite(entry)):
        return False
    precision = np.finfo(dtype).eps if np.issubdtype(dtype, np.floating) else 0.0
    return bool(np.ptp(entry) <= _CONSTANT_ULPS * precision * np.max(np.abs(entry)))

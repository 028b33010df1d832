"""A PyMC model as a score with a density."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import DensityScore, Position

_TRIES = 100
"""Jittered starts to look at before giving up; the last one is then refused by `sample`."""


class _Graph(eqx.Module):
    """Outputs of a PyTensor graph as a function of the value variables by name."""

    function: Callable[..., Sequence[Array]]
    inputs: tuple[str, ...]

    def __call__(self, position: Position) -> list[Array]:
        with warnings.catch_warnings():  # PyMC's graphs ask for float64, and get float32 where JAX is set to that
            warnings.filterwarnings("ignore", message="Explicitly requested dtype", category=UserWarning)
            return list(self.function(*(position[name] for name in self.inputs)))


class _LogDensity(eqx.Module):
    """``log p(position, data)`` in the space of the value variables, Jacobian included."""

    graph: _Graph

    def __call__(self, position: Position) -> Array:
        return jnp.asarray(self.graph(position)[0])


class _Constrain(eqx.Module):
    """Value variables -> the model's own variables, deterministic ones included."""

    graph: _Graph
    names: tuple[str, ...]

    def __call__(self, position: Position) -> dict[str, Array]:
        return {name: jnp.asarray(value) for name, value in zip(self.names, self.graph(position), strict=True)}


class _Start(eqx.Module):
    """PyMC's initial point, jittered uniformly by one, with a finite density and score."""

    log_density: _LogDensity
    initial_point: Position

    def __call__(self, key: Array) -> Position:
        def jittered(count: Array) -> Position:
            leaves, tree = jax.tree.flatten(self.initial_point)
            keys = jax.random.split(jax.random.fold_in(key, count), len(leaves))
            moved = [
                x + jax.random.uniform(one, x.shape, x.dtype, -1.0, 1.0) for x, one in zip(leaves, keys, strict=True)
            ]
            return jax.tree.unflatten(tree, moved)

        def fails(state: tuple[Array, Position]) -> Array:
            count, position = state
            value, score = jax.value_and_grad(self.log_density)(position)
            finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in (value, *jax.tree.leaves(score))])
            return ~jnp.all(finite) & (count < _TRIES)

        def again(state: tuple[Array, Position]) -> tuple[Array, Position]:
            count = state[0] + 1
            return count, jittered(count)

        first = jnp.asarray(0)
        return jax.lax.while_loop(fails, again, (first, jittered(first)))[1]


def from_pymc(model: Any, *, allow_prior: bool = False) -> DensityScore:
    """The posterior of a PyMC model as a score with a density.

    Positions are dictionaries of the model's value variables in PyMC's *unconstrained* space (``tau_log__`` is the
    logarithm of a positive ``tau``), where the log density includes the Jacobian of the transformation. Draws are
    shown in the model's own variables, with its deterministic ones, through `constrain`. PyMC translates the model to
    JAX; data are constants of the compiled program.

    The dtype is JAX's: float32 unless ``jax_enable_x64`` is set, where PyMC itself computes in float64. Importing
    PyTensor's JAX backend would set it; here the setting stays as it was.

    Arguments:
        model: a `pymc.Model`.
        allow_prior: accept a model without observed variables and potentials.

    Returns:
        A [`DensityScore`][scoresample.DensityScore] with `structure`, `constrain` and `init_position`, which is PyMC's
        initial point with a jitter uniform on [-1, 1] in each coordinate.

    Raises:
        ImportError: if PyMC is not installed.
        TypeError: if `model` is no PyMC model.
        ValueError: if it has discrete free variables, no free ones, or no observed ones.
        NotImplementedError: by PyTensor, if an operation of the model has no translation to JAX.

    Examples:
        >>> import jax, pymc as pm, scoresample as ss  # doctest: +SKIP
        >>> with pm.Model() as model:  # doctest: +SKIP
        ...     scale = pm.HalfNormal("scale", 1.0)
        ...     pm.Normal("y", 0.0, scale, observed=[0.5, -1.0])
        >>> draws = ss.sample(from_pymc(model), ss.NUTS(), key=jax.random.key(0))  # doctest: +SKIP
        >>> draws.sites()["scale"].shape  # doctest: +SKIP
        (4, 1000)
    """
    pymc, translate = _import_pymc()
    if not isinstance(model, pymc.Model):
        raise TypeError(f"`model` must be a pymc.Model, got {type(model).__name__}. Pass what `pm.Model()` made.")
    discrete = sorted(str(variable.name) for variable in model.discrete_value_vars)
    if discrete:
        raise ValueError(
            f"`model`: {discrete} are discrete free variables, which have no score. Sum them out "
            "(pymc_extras.marginalize), or sample the model with PyMC and bring the chains by Draws.from_arviz."
        )
    if not model.free_RVs:
        raise ValueError("`model`: there is no free variable to sample. Every variable has `observed`.")
    if not (model.observed_RVs or model.potentials or allow_prior):
        raise ValueError(
            "`model`: no variable is observed, so this is the prior and not a posterior. Pass the data by `observed=`, "
            "or say `allow_prior=True` if the prior is what you want."
        )
    inputs = tuple(str(variable.name) for variable in model.value_vars)
    own = [variable for variable in model.unobserved_value_vars if not _transformed(pymc, str(variable.name))]
    log_density = _LogDensity(_Graph(translate(model.value_vars, [model.logp()]), inputs))
    start = model.initial_point()
    initial_point = {name: jnp.asarray(np.asarray(start[name]), dtype=float) for name in inputs}
    return DensityScore(
        log_density,
        structure=initial_point,
        constrain=_Constrain(_Graph(translate(model.value_vars, own), inputs), tuple(str(v.name) for v in own)),
        init_position=_Start(log_density, initial_point),
    )


def _transformed(pymc: Any, name: str) -> bool:
    return bool(pymc.util.is_transformed_name(name))


def _import_pymc() -> tuple[Any, Callable[..., Any]]:
    """PyMC and its translation of graphs to JAX, without what importing it does to JAX's settings.

    PyTensor's JAX backend sets ``jax_enable_x64``, and ``pymc.sampling.jax`` asks XLA for a hundred host devices.
    """
    jax.devices()  # once the devices are there, XLA_FLAGS do not matter any more
    enabled, flags = jax.config.jax_enable_x64, os.environ.get("XLA_FLAGS")
    try:
        import pymc  # pyright: ignore[reportMissingImports]
        from pymc.sampling.jax import get_jaxified_graph  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError('from_pymc needs PyMC: pip install "scoresample[pymc]"') from error
    finally:
        jax.config.update("jax_enable_x64", enabled)
        if flags is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = flags
    return pymc, get_jaxified_graph

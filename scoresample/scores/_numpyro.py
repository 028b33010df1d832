"""A NumPyro model as a score with a density."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer import init_to_uniform
from numpyro.infer.util import (
    ParamInfo,
    constrain_fn,
    find_valid_initial_params,
    initialize_model,
    potential_energy,
)

from scoresample.scores._base import Position, structure_of
from scoresample.scores._function import DensityScore

_FIXED_SEED = 0
"""Models may ask for a key outside their latent sites (subsampling, stochastic initial values): it is constant."""

_UNIFORM_START = init_to_uniform()
"""One object for all models: each call makes a new function, and a new function compiles again."""


class _LogJoint(eqx.Module):
    """``log p(position, data)`` in unconstrained space, Jacobian included: NumPyro's potential, negated here once."""

    model: Callable[..., Any]

    def __call__(self, position: Position, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> Array:
        return -jnp.asarray(
            potential_energy(handlers.seed(self.model, _FIXED_SEED), model_args, model_kwargs, position)
        )


class _Constrain(eqx.Module):
    """Unconstrained position -> constrained latent sites and deterministic sites."""

    model: Callable[..., Any]
    model_args: tuple[Any, ...]
    model_kwargs: dict[str, Any]

    def __call__(self, position: Position) -> dict[str, Array]:
        return constrain_fn(
            handlers.seed(self.model, _FIXED_SEED),
            self.model_args,
            self.model_kwargs,
            position,
            return_deterministic=True,
        )


class _Start(eqx.Module):
    """A start with finite density and score, by a NumPyro initialisation strategy (100 tries)."""

    model: Callable[..., Any]
    model_args: tuple[Any, ...]
    model_kwargs: dict[str, Any]
    prototype: Position
    strategy: Callable[..., Any]

    def __call__(self, key: Array) -> Position:
        (position, _, _), _ = find_valid_initial_params(
            key,
            handlers.seed(self.model, _FIXED_SEED),
            init_strategy=self.strategy,
            model_args=self.model_args,
            model_kwargs=self.model_kwargs,
            prototype_params=self.prototype,
        )
        return position


class _StaticData:
    """A model with its data baked in, for models whose Python branches on the data.

    What depends on the data alone is evaluated while the program is traced, so that it can be branched on.
    """

    def __init__(self, model: Callable[..., Any], model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> None:
        self.model, self.model_args, self.model_kwargs = model, model_args, model_kwargs

    def __call__(self) -> Any:
        with jax.ensure_compile_time_eval():
            return self.model(*self.model_args, **self.model_kwargs)


def _as_arrays(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, tree)


def _check_trace(trace: Mapping[str, dict[str, Any]]) -> None:
    """Refuse models that a continuous sampler cannot serve."""
    latent = {k: s for k, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
    observed = {k: s for k, s in trace.items() if s["type"] == "sample" and s["is_observed"]}
    discrete = sorted(k for k, s in latent.items() if s["fn"].support.is_discrete)
    if discrete:
        raise ValueError(
            f"`model`: the sites {discrete} are discrete latent variables, which have no score. Sum them out in the "
            "model (for mixtures: numpyro.distributions.MixtureSameFamily), or sample the model with NumPyro's "
            "DiscreteHMCGibbs and bring the chains to `compare`."
        )
    if not latent:
        raise ValueError("`model`: there is no latent site to sample. Every `numpyro.sample` has an `obs`.")
    if not observed:
        raise ValueError(
            "`model`: no site is observed, so this is the prior and not a posterior. Pass the data in `model_args` or "
            "`model_kwargs` (an argument left at None makes its site latent), or say `allow_prior=True` if the prior "
            "is what you want."
        )
    for name, site in observed.items():
        value = np.asarray(site["value"])
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise ValueError(
                f"`model`: {int(np.isnan(value).sum())} of the {value.size} observations of site '{name}' are NaN. "
                "Drop the missing entries, mask them (`numpyro.handlers.mask`), or make them latent sites of their own."
            )


def from_numpyro(
    model: Callable[..., Any],
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    static_data: bool = False,
    allow_prior: bool = False,
    init_strategy: Callable[..., Any] | None = None,
) -> DensityScore:
    """The posterior of a NumPyro model as a score with a density.

    Positions are dictionaries of the model's latent sites in NumPyro's *unconstrained* space (a positive site by its
    logarithm), where the log density includes the Jacobian of the transformation. Draws are shown in the model's own
    coordinates, with its deterministic sites, through `constrain`.

    Arguments:
        model: a NumPyro model, ``model(*model_args, **model_kwargs)``.
        model_args: its positional arguments, data included. Arrays are traced: new data of the same shape does not
            compile again. Python numbers and strings are constants.
        model_kwargs: its keyword arguments.
        static_data: bake all arguments into the compiled program. Needed by models whose Python code branches on the
            values of the data.
        allow_prior: accept a model without observed sites.
        init_strategy: NumPyro initialisation strategy for chains; by default uniform on [-2, 2] in unconstrained
            space, retried until density and score are finite.

    Returns:
        A [`DensityScore`][scoresample.DensityScore] with `structure`, `constrain` and `init_position`.

    Raises:
        TypeError: if `model` is not a function.
        ValueError: if there are discrete latent sites, no latent or no observed sites, missing observations, or if
            the model branches on traced data; each message says what to do.

    Examples:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> def model(y):
        ...     scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        ...     numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
        >>> posterior = from_numpyro(model, (jnp.array([0.5, -1.0]),))
        >>> float(posterior.constrain({"scale": jnp.array(0.0)})["scale"])
        1.0
    """
    if not callable(model):
        raise TypeError(f"`model` must be a NumPyro model (a function), got {type(model).__name__}.")
    args, kwargs = tuple(_as_arrays(tuple(model_args))), dict(_as_arrays(dict(model_kwargs or {})))
    with handlers.block():
        started = handlers.substitute(handlers.seed(model, _FIXED_SEED), substitute_fn=_UNIFORM_START)
        trace = handlers.trace(started).get_trace(*args, **kwargs)
    if allow_prior and not any(s["type"] == "sample" and s["is_observed"] for s in trace.values()):
        trace = {**trace, "": {"type": "sample", "is_observed": True, "value": 0.0}}
    _check_trace(trace)
    strategy: Any = _UNIFORM_START if init_strategy is None else init_strategy

    if static_data:
        model, args, kwargs = _StaticData(model, args, kwargs), (), {}
    try:
        prototype = _prototype(model, args, kwargs, strategy)
        log_joint = _LogJoint(model)
        eqx.filter_eval_shape(log_joint, prototype, args, kwargs)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(
            "`model`: its Python code depends on the values of its data, which are traced here. Pass "
            "`static_data=True` to compile the data in."
        ) from error
    return DensityScore(
        log_joint,
        args,
        kwargs,
        structure=prototype,
        constrain=_Constrain(model, args, kwargs),
        init_position=_Start(model, args, kwargs, prototype, strategy),
    )


def _prototype(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], strategy: Callable[..., Any]
) -> Position:
    """One unconstrained position, for its tree, shapes and dtypes."""
    with handlers.block():
        info = initialize_model(
            jax.random.key(_FIXED_SEED),
            model,
            init_strategy=strategy,
            model_args=args,
            model_kwargs=kwargs,
            validate_grad=False,
        )
    params = info.param_info
    position = params.z if isinstance(params, ParamInfo) else params
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), structure_of(position))

"""Any sampler as a kernel of NumPyro's MCMC."""

import copy
import dataclasses
import operator
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import unconstrain_fn
from numpyro.util import is_prng_key

from scoresample.interop._stepping import PathDraws, as_position, one_of, path_draws, score_for, warm_up
from scoresample.paths import AbstractScorePath
from scoresample.samplers import AbstractHamiltonian, AbstractParticleSampler, AbstractSampler
from scoresample.scores import AbstractDensityScore, AbstractScore, DensityScore, Position, from_numpyro, structure_of

_BLOCKS = "_gibbs_sites"
"""The model argument through which NumPyro's Gibbs hands the values of the other blocks on; it is always there."""

_FIXED_SEED = 0
_REFRESH = 7
"""Folded into a key for what `refresh` draws: not 0 or 1, which splitting the key in two gives."""


class ScoreKernelState(NamedTuple):
    """The state of a chain, or of all chains with a leading axis.

    Every statistic in `stats` is an attribute too, by ArviZ's name (``state.n_steps``) and by NumPyro's
    (``state.num_steps``, ``state.accept_prob``, ``state.potential_energy``).

    Attributes:
        z: the position: the model's sites in unconstrained space.
        rng_key: random key of the next step.
        warmup_left: NumPyro's calls that still belong to its warm-up.
        state: the sampler's own state.
        parameters: the arrays of the tuned sampler, such as ``parameters.step_size``; None for path samplers.
        stats: statistics of the last step by ArviZ's names; zeros before the first, but for `lp`.
    """

    z: Any
    rng_key: Any
    warmup_left: Any
    state: Any
    parameters: Any
    stats: Any

    def __getattr__(self, name: str) -> Any:
        """A statistic by its name, NumPyro's or ArviZ's."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "potential_energy" and "lp" in self.stats:
            return -self.stats["lp"]
        ours = {"num_steps": "n_steps", "accept_prob": "acceptance_rate"}.get(name, name)
        if ours in self.stats:
            return self.stats[ours]
        raise AttributeError(f"this sampler has no statistic `{name}`; it has {sorted(self.stats)}.")

    def __getitem__(self, index: Any) -> Any:
        """A field by its number; NumPyro also asks for names, after it has not found the attribute."""
        return getattr(self, index) if isinstance(index, str) else tuple.__getitem__(self, index)


class ScoreKernel(MCMCKernel):
    """A sampler of this package as a kernel of `numpyro.infer.MCMC`.

    Chains run sequentially, vectorised, or in parallel over devices; `get_samples` and `print_summary` show the model's
    sites, deterministic ones too, and `arviz.from_numpyro` takes the run. The kernel leaves invariant what its sampler
    leaves invariant, on the posterior of the model or on `target`. A path sampler's draws are independent.

    **Warm-up.** The sampler's own warm-up, `num_warmup` steps long, is one compiled program inside `init`. NumPyro's
    warm-up calls then only count, without evaluating anything: the price is that of one warm-up, and all draws
    collected from it are the position at its end. Vectorised chains are warmed up together.

    **Statistics.** ``extra_fields=("num_steps", "accept_prob", "diverging", "potential_energy")`` collects what the
    sampler has of them; any other statistic goes by ArviZ's name (``"lp"``, ``"energy"``, ``"tree_depth"``), tuned
    parameters by ``"parameters.step_size"``. For NUTS and HMC "diverging" is collected by default.

    **Gibbs.** NumPyro's `Gibbs` takes the kernel as a block (its HMCGibbs and the like want NumPyro's own HMC). The
    block is tuned on its conditional at the start, moves in every sweep, and is tuned again half way through the
    warm-up, given what the other blocks have reached by then. The supports of its sites must not depend on sites of
    other blocks. For a run of its own give `init_params` in unconstrained space, for a block in the model's
    coordinates.

    Attributes:
        sample_field: where the draws are in the state.

    Examples:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> import scoresample as ss
        >>> from scoresample.interop import ScoreKernel
        >>> def model(y):
        ...     scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        ...     numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
        >>> kernel = ScoreKernel(ss.MALA(), model)
        >>> mcmc = numpyro.infer.MCMC(kernel, num_warmup=100, num_samples=50, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), jnp.array([0.5, -1.0]), extra_fields=("accept_prob",))
        >>> mcmc.get_samples()["scale"].shape, mcmc.get_extra_fields()["accept_prob"].shape
        ((50,), (50,))
    """

    sample_field: ClassVar[str] = "z"  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(
        self,
        sampler: AbstractSampler | AbstractParticleSampler[Any],
        model: Callable[..., Any] | None = None,
        *,
        target: AbstractScore | AbstractScorePath | None = None,
        plan: Any = None,
        init_strategy: Callable[..., Any] | None = None,
        allow_prior: bool = False,
        static_data: bool = False,
    ) -> None:
        """Make the kernel.

        Arguments:
            sampler: any sampler whose particles do not see each other.
            model: a NumPyro model; `MCMC.run` brings its arguments. Without `target` its posterior is sampled.
            target: what to sample instead: a score on the model's unconstrained space, or a path to it, such as one
                that `fit_score` has learned from its draws. The model then only constrains and names the draws; without
                a model the target's own `constrain` does. Path samplers need it; chain samplers run on a path's last
                level.
            plan: the levels of a path sampler, from ``sampler.plan(path, key=key)``; made here if None.
            init_strategy: NumPyro's initialisation strategy for chains; by default uniform on [-2, 2].
            allow_prior: accept a model without observed sites.
            static_data: bake the model's arguments into the program, for models that branch on the values of their
                data.

        Raises:
            TypeError: if there is no function or sampler where one is due, or the target does not suit the sampler.
            ValueError: if there is neither model nor target, or the sampler's draws cannot be taken one at a time.
        """
        if model is None and target is None:
            raise ValueError("`model`: there is nothing to sample. Give a NumPyro model, or a `target`.")
        if model is not None and not callable(model):
            raise TypeError(f"`model` must be a NumPyro model (a function), got {type(model).__name__}.")
        match sampler:
            case AbstractSampler():
                if plan is not None:
                    raise ValueError(f"`plan` is for path samplers; {type(sampler).__name__} runs chains.")
                self._target: Any = None if target is None else score_for(sampler, target)
                self._stepper: Any = sampler
            case AbstractParticleSampler():
                if target is None:
                    raise TypeError(
                        f"`target`: {type(sampler).__name__} needs a path from noise to the posterior, but a model is "
                        "the posterior alone. Learn one, `target=fit_score(draws, key=key)` or "
                        "`fit_score_to_density(from_numpyro(model, data), key=key)`, and keep the model for its sites."
                    )
                self._target, self._stepper = target, path_draws(sampler, target, plan, None)
            case _:  # pyright: ignore[reportUnnecessaryComparison]
                raise TypeError(  # pyright: ignore[reportUnreachable]
                    f"`sampler` must be an instance of a sampler, such as NUTS() or ReverseSDE(), got {sampler!r}."
                )
        self._sampler, self._model = sampler, model
        self._settings: dict[str, Any] = {
            "init_strategy": init_strategy,
            "allow_prior": allow_prior or target is not None,
            "static_data": static_data,
        }
        self._forget()

    def _forget(self) -> None:
        """Drop what `init` finds out about the model and the sampler."""
        self._posterior: DensityScore | None = None
        self._arguments: list[Any] = []
        self._static: Any = None
        self._num_warmup = 0
        self._sample_fn: Any = None

    @property
    def model(self) -> Callable[..., Any] | None:
        """The model, which ArviZ reads for its dimensions and observations."""
        return self._model

    @property
    def asymptotically_exact(self) -> bool:
        """Whether the sampler's invariant law is its target: what imported draws are judged by."""
        return self._sampler.asymptotically_exact

    @property
    def default_fields(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is collected without asking."""
        return ("z", "diverging") if isinstance(self._sampler, AbstractHamiltonian) else ("z",)

    def get_diagnostics_str(self, state: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the progress bar of a single chain says."""
        said = [f"{int(state.stats['n_steps'])} score evaluations"]
        if (step_size := getattr(state.parameters, "step_size", None)) is not None:
            said.append(f"step size {float(step_size):.2e}")
        if "acceptance_rate" in state.stats:
            said.append(f"acc. prob={float(state.stats['acceptance_rate']):.2f}")
        return ", ".join(said)

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Position | None = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> ScoreKernelState:
        """Start and warm up one chain, or all of them for a batch of keys.

        Arguments:
            rng_key: one random key, or one for each of the chains.
            num_warmup: steps of the sampler's warm-up.
            init_params: starts in unconstrained space, with a leading axis for a batch; in the model's coordinates
                where the kernel is a block of Gibbs.
            model_args: the model's arguments.
            model_kwargs: the model's keyword arguments.

        Returns:
            The state after the warm-up, a [`ScoreKernelState`] with a leading axis for a batch.

        Raises:
            ValueError: if the model does not suit (see [`from_numpyro`][scoresample.from_numpyro]), a start is missing,
                wrong or not finite, or the sampler has to be tuned and `num_warmup` is 0.
        """
        kwargs = {} if model_kwargs is None else dict(model_kwargs)
        self._learn_model(model_args, kwargs)
        score = self._score(model_args, kwargs)
        single = is_prng_key(rng_key)
        keys = rng_key[None] if single else rng_key
        rng_keys, keys_start, keys_warmup = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
        if init_params is None:
            positions = self._starts(score, keys_start)
        else:
            if _BLOCKS in kwargs:
                init_params = unconstrain_fn(self._seeded_model(), model_args, kwargs, init_params)
            chains = jax.tree.map(lambda x: jnp.asarray(x)[None], init_params) if single else init_params
            positions = jax.vmap(lambda one: as_position(one, score.structure, "init_params"))(chains)
        self._num_warmup = num_warmup
        states, parameters = self._warm_up(score, positions, num_warmup, keys_warmup[0])
        z, stats, finite = _first(score, self._stepper_with(one_of(parameters)), states, positions)
        if not isinstance(finite, jax.core.Tracer) and not np.all(finite):
            raise ValueError(
                f"`init_params`: the chains {np.flatnonzero(~np.asarray(finite)).tolist()} start where the position or "
                "the score is not finite. Give starts inside the support, or another `init_strategy`."
            )
        left = jnp.full((len(keys),), num_warmup)
        state = ScoreKernelState(z, rng_keys, left, states, parameters, stats)
        self._sample_fn = self.sample
        return one_of(state) if single else state

    def sample(
        self, state: ScoreKernelState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> ScoreKernelState:
        """One step of the sampler, or of all chains; during NumPyro's warm-up, after the sampler's own, nothing.

        As a block of Gibbs it steps during the warm-up too.

        Arguments:
            state: the current state.
            model_args: the model's arguments.
            model_kwargs: the model's keyword arguments.

        Returns:
            The next state.
        """
        kwargs = {} if model_kwargs is None else model_kwargs
        score = self._score(model_args, kwargs)
        single = is_prng_key(state.rng_key)

        def advance(state: ScoreKernelState) -> ScoreKernelState:
            return self._advance(score, state) if single else jax.vmap(lambda s: self._advance(score, s))(state)

        counted = state._replace(warmup_left=jnp.maximum(state.warmup_left - 1, 0))
        if _BLOCKS in kwargs:
            return advance(self._tuned_again(score, state, counted))
        in_warmup = jnp.reshape(state.warmup_left, (-1,))[0] > 0
        return jax.lax.cond(in_warmup, lambda state: state, advance, counted)

    def refresh(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state: ScoreKernelState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> ScoreKernelState:
        """The state at the same position after the values of other blocks have changed; one score evaluation."""
        score = self._score(model_args, {} if model_kwargs is None else model_kwargs)
        stepper = self._stepper_with(state.parameters)
        fresh = stepper.init(score, state.z, key=jax.random.fold_in(state.rng_key, _REFRESH))
        if hasattr(fresh, "random_generator_arg"):  # the count of trajectories goes on
            fresh = fresh._replace(random_generator_arg=state.state.random_generator_arg)
        fresh = jax.tree.map(lambda new, old: new.astype(old.dtype), fresh, state.state)
        return state._replace(state=fresh, stats=_with_lp(state.stats, score, state.z))

    def wrap_model(self, wrapper: Callable[..., Any]) -> "ScoreKernel":
        """A kernel on the wrapped model: how NumPyro's Gibbs makes a block of it.

        Raises:
            ValueError: if the kernel has a `target`, which would not see the other blocks.
        """
        if self._target is not None or self._model is None:
            raise ValueError(
                "`target`: it does not change with the values of other blocks, so a kernel with a target cannot be a "
                "block. Sample the block's sites from the model: ScoreKernel(sampler, model)."
            )
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    def postprocess_fn(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any] | None
    ) -> Callable[[Position], Any]:
        """The map from a position to the model's sites, deterministic ones too."""
        if self._model is None:
            return self._target.constrain
        if self._posterior is None:
            self._learn_model(model_args, {} if model_kwargs is None else model_kwargs)
        return self._model_score(model_args, {} if model_kwargs is None else model_kwargs).constrain

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the settings, not what `init` has found."""
        return self.__dict__ | {"_posterior": None, "_arguments": [], "_static": None, "_sample_fn": None}

    def _seeded_model(self) -> Any:
        return handlers.seed(self._model, _FIXED_SEED)

    def _learn_model(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> None:
        """Check the model and find the shapes of its sites."""
        arguments = jax.tree.leaves((model_args, model_kwargs))
        known = len(arguments) == len(self._arguments) and all(map(operator.is_, arguments, self._arguments))
        if self._model is None or (self._posterior is not None and known):
            return
        blocks = model_kwargs.get(_BLOCKS)
        if blocks is not None and self._settings["static_data"]:
            raise ValueError("`static_data`: the values of other blocks change, so a block of Gibbs cannot have it.")
        # Gibbs may be traced where chains run in parallel: then the values of other blocks are tracers.
        prototypes = [{}] if blocks is None else [{_BLOCKS: self._draw(model_args, model_kwargs, k)} for k in (0, 1)]
        try:
            with jax.ensure_compile_time_eval():
                posteriors = [
                    from_numpyro(self._model, model_args, {**model_kwargs, **values}, **self._settings)
                    for values in prototypes
                ]
        except jax.errors.TracerArrayConversionError as error:
            raise ValueError(
                "`model_args`: the kernel looks at the model's arguments when it starts, and they are traced here. "
                "Call `MCMC.run` outside of jax.jit and jax.vmap, or batch over keys only."
            ) from error
        if blocks is not None:
            self._check_supports(posteriors)
        elif not any(isinstance(leaf, jax.core.Tracer) for leaf in arguments):
            self._arguments = arguments
        self._posterior = posteriors[0]

    def _draw(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any], seed: int) -> dict[str, Any]:
        """Values of the other blocks' sites, drawn from the prior."""
        with jax.ensure_compile_time_eval():
            model = handlers.substitute(handlers.seed(self._model, seed), substitute_fn=init_to_sample)
            trace = handlers.trace(model).get_trace(*model_args, **{**model_kwargs, _BLOCKS: {}})
        return {name: trace[name]["value"] for name in model_kwargs[_BLOCKS]}

    def _check_supports(self, posteriors: list[DensityScore]) -> None:
        """Refuse sites whose constraint depends on other blocks: Gibbs constrains without their values."""
        structure = posteriors[0].structure
        with jax.ensure_compile_time_eval():
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure)
            first, second = (posterior.constrain(zeros) for posterior in posteriors)
            moving = sorted(name for name in structure if not np.array_equal(first[name], second[name]))
        if moving:
            raise ValueError(
                f"`model`: the supports of the sites {moving} depend on sites of other blocks. Put them into one block."
            )

    def _model_score(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> DensityScore:
        """The posterior given these arguments, concrete or traced."""
        known = self._posterior
        assert known is not None, "`init` comes first"
        if self._settings["static_data"]:
            assert self._model is not None
            with jax.ensure_compile_time_eval():
                return from_numpyro(self._model, model_args, model_kwargs, **self._settings)
        data = {"model_args": model_args, "model_kwargs": model_kwargs}
        constrain: Any = known.constrain
        start: Any = known.init_position
        return DensityScore(
            known.fn,
            model_args,
            model_kwargs,
            structure=known.structure,
            constrain=dataclasses.replace(constrain, **data),
            init_position=dataclasses.replace(start, **data),
        )

    def _score(self, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> Any:
        """What the sampler runs on: the target, or the posterior given these arguments."""
        if self._target is None:
            return self._model_score(*_as_arrays((model_args, model_kwargs)))
        if self._posterior is not None and self._target.structure is not None:
            got, want = (
                {name: leaf.shape for name, leaf in structure.items()} if isinstance(structure, dict) else structure
                for structure in (structure_of(self._target.structure), self._posterior.structure)
            )
            if got != want:
                raise ValueError(
                    f"`target`: its positions have the shapes {got}, but the model's sites in unconstrained space have "
                    f"{want}. Learn it from draws of this model: `fit_score` on the `Draws` of "
                    "`sample(from_numpyro(...))` keeps them."
                )
        return self._target

    def _starts(self, score: Any, keys: Array) -> Position:
        """A start for each chain."""
        if isinstance(score, AbstractScorePath):
            return jax.tree.map(lambda leaf: jnp.zeros((len(keys), *leaf.shape), leaf.dtype), score.structure)
        if score.init_position is None:
            raise ValueError(
                "`init_params`: this target does not know where to start. Pass `init_params` to `MCMC.run`: one "
                "position, or one for each chain with a leading axis."
            )
        return _draw_starts(score, keys)

    def _warm_up(self, score: Any, positions: Position, num_warmup: int, key: Array) -> tuple[Any, Any]:
        """The states of all chains, and the arrays of the tuned sampler."""
        if isinstance(self._stepper, PathDraws):
            return self._stepper.init(score, positions, key=key), None
        states, tuned = warm_up(score, self._stepper, positions, num_warmup, key)
        parameters, self._static = eqx.partition(tuned, eqx.is_array)
        return states, parameters

    def _stepper_with(self, parameters: Any) -> Any:
        return self._stepper if isinstance(self._stepper, PathDraws) else eqx.combine(parameters, self._static)

    def _advance(self, score: Any, state: ScoreKernelState) -> ScoreKernelState:
        """One step of one chain."""
        rng_key, key = jax.random.split(state.rng_key)
        inner, stats = self._stepper_with(state.parameters).step(score, state.state, key=key)
        z = jax.tree.map(lambda x, old: x.astype(old.dtype), inner.position, state.z)
        stats = {name: jnp.asarray(stats[name], old.dtype) for name, old in state.stats.items()}
        return state._replace(z=z, rng_key=rng_key, state=inner, stats=stats)

    def _tuned_again(self, score: Any, state: ScoreKernelState, counted: ScoreKernelState) -> ScoreKernelState:
        """Half way through the warm-up of a block, the chain after another warm-up of its own."""
        if isinstance(self._stepper, PathDraws) or self._num_warmup < 2:
            return counted

        def tune(state: ScoreKernelState) -> ScoreKernelState:
            rng_key, key = jax.random.split(state.rng_key)
            states, parameters = self._warm_up(score, jax.tree.map(lambda x: x[None], state.z), self._num_warmup, key)
            inner, parameters = one_of((states, parameters))
            z = jax.tree.map(lambda x, old: x.astype(old.dtype), inner.position, state.z)
            return state._replace(z=z, rng_key=rng_key, state=inner, parameters=parameters)

        # A loop of one turn or none: under vmap a conditional would run both its branches in every sweep.
        due = state.warmup_left == self._num_warmup // 2
        return jax.lax.while_loop(
            lambda carry: carry[0], lambda carry: (jnp.zeros_like(carry[0]), tune(carry[1])), (due, counted)
        )[1]


def _as_arrays(tree: Any) -> Any:
    """NumPy's arrays as JAX's: the data of a score are its leaves."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, tree)


@eqx.filter_jit
def _draw_starts(score: AbstractScore, keys: Array) -> Position:
    return jax.vmap(score.init_position)(keys)  # pyright: ignore[reportArgumentType]


def _with_lp(stats: dict[str, Array], score: Any, position: Position) -> dict[str, Array]:
    """The statistics with the log density at a position, where they have one."""
    if "lp" not in stats or not isinstance(score, AbstractDensityScore):
        return stats
    return stats | {"lp": score.logdensity(position).astype(stats["lp"].dtype)}


@eqx.filter_jit
def _first(score: Any, stepper: Any, states: Any, starts: Position) -> tuple[Position, dict[str, Array], Array]:
    """Positions and statistics before the first step, and whether each chain has started where all is finite."""

    def one(state: Any, start: Position) -> tuple[Position, dict[str, Array], Array]:
        z = jax.tree.map(lambda x, like: x.astype(like.dtype), state.position, start)
        _, shapes = jax.eval_shape(lambda s: stepper.step(score, s, key=jax.random.key(0)), state)
        stats = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        values = [start] if isinstance(score, AbstractScorePath) else [start, score(start)]
        finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(values)])
        return z, _with_lp(stats, score, z), jnp.all(finite)

    return jax.vmap(one)(states, starts)

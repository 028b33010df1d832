"""The one result of every sampler."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array
from numpyro.infer import MCMC

from scoresample.scores import Constrain, Position, named_sites

Kind = Literal["chains", "independent", "interacting"]
"""How draws depend on each other: in chains, not at all, or through a shared population of particles."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Draws:
    """Draws of a sampler, with what is needed to judge them.

    `sample` returns them. Chains that were drawn elsewhere become draws by `from_arviz`, `from_numpyro_mcmc` and
    `from_blackjax`; what nobody recorded about them is nan, and is shown as a dash.

    Attributes:
        position: tree of arrays with leading axes (chain, draw). NumPyro models: unconstrained coordinates by site.
        kind: ``"chains"``; ``"independent"`` or ``"interacting"`` draws have one chain, (1, n).
        log_weights: (chain, draw) log weights, or None where all draws count alike.
        stats: (chain, draw) arrays by ArviZ's names: ``lp``, ``acceptance_rate``, ``diverging``, ``energy``,
            ``n_steps``, ``tree_depth``, ``non_finite`` and the like.
        info: facts of the run: ``num_warmup``, ``num_evaluations`` (with the warm-up), ``compile_seconds``, ...
            Of path samplers on noised paths ``noise_left``, the noise sigma/alpha at which sampling stopped, and where
            it is known ``smallest_scale``, the data's smallest standard deviation, and for points without a bandwidth
            of that size ``point_spacing``, the median distance of neighbours; all in standard coordinates. Of cascades
            ``stages``, the same facts for each, and ``full_size_nfe``, the sum of the stages' evaluations, each
            weighted by its share of the position's numbers.
        nfe: score evaluations per draw, the warm-up not counted; nan if not known.
        seconds: wall clock of the call, compilation included; nan if not known.
        constrain: position -> named sites.
        attributes: sampler, settings, target, versions and device.
    """

    position: Position
    kind: Kind
    log_weights: Array | None
    stats: dict[str, np.ndarray]
    info: dict[str, Any]
    nfe: float
    seconds: float
    constrain: Constrain
    attributes: dict[str, Any]

    @classmethod
    def from_arviz(
        cls,
        tree: xr.DataTree,
        *,
        name: str | None = None,
        var_names: Sequence[str] | None = None,
        nfe: float | None = None,
        seconds: float | None = None,
        asymptotically_exact: bool | None = None,
    ) -> "Draws":
        """Draws of an ArviZ DataTree: chains of PyMC, Stan, NumPyro or any other program.

        Positions are the variables of the group ``posterior`` as they are, in the model's own coordinates, with
        deterministic variables among them; `constrain` only names them. Names of dimensions and labels along them are
        not kept. What the tree's attributes say about the run is (`sampling_time` and all that `to_arviz` wrote, so
        that draws go to ArviZ and back); an `nfe` that nobody recorded is the mean of ``n_steps``, else nan.

        Arguments:
            tree: a DataTree with the group ``posterior``, whose variables have the dimensions chain and draw, and
                perhaps ``sample_stats``.
            name: what to call the sampler.
            var_names: the variables to keep, by default all. Large deterministic ones are better left out.
            nfe: score evaluations per draw, the warm-up not counted, if you know them.
            seconds: wall clock of the run, if you know it.
            asymptotically_exact: whether the chains leave their target invariant. By default what the tree says; else
                yes if it holds acceptance rates, which only such a sampler has; else unknown, and `compare` asks for
                care.

        Returns:
            Draws of kind ``"chains"``, unless the tree says otherwise; weighted draws that `to_arviz` resampled are
            ``"interacting"``, so that copies do not count.

        Raises:
            TypeError: if `tree` is no DataTree, such as the path of a file.
            ValueError: if there is no posterior, or a variable has no chains and draws or is not numeric.

        Examples:
            >>> import arviz, numpy as np
            >>> rng = np.random.default_rng(0)
            >>> tree = arviz.from_dict({"posterior": {"mu": rng.normal(size=(4, 100))}})
            >>> draws = Draws.from_arviz(tree, name="my Gibbs sampler", asymptotically_exact=True)
            >>> draws.num_chains, draws.attributes["sampler"], draws.nfe
            (4, 'my Gibbs sampler', nan)
        """
        from scoresample.inference._from_arviz import draws_from_arviz

        return draws_from_arviz(
            tree,
            name=name,
            var_names=var_names,
            nfe=nfe,
            seconds=seconds,
            asymptotically_exact=asymptotically_exact,
        )

    @classmethod
    def from_numpyro_mcmc(
        cls,
        mcmc: MCMC,
        *,
        name: str | None = None,
        var_names: Sequence[str] | None = None,
        nfe: float | None = None,
        seconds: float | None = None,
        asymptotically_exact: bool | None = None,
    ) -> "Draws":
        """Draws of a run of NumPyro's own MCMC.

        Positions are the sites as `mcmc.get_samples` gives them: constrained, with deterministic sites. Statistics are
        the fields that were collected: ask for them by ``mcmc.run(..., extra_fields=("num_steps", "accept_prob",
        "energy", "potential_energy"))``. With ``num_steps`` the score evaluations per draw are known, thinning
        included; NumPyro records no time.

        Arguments:
            mcmc: a `numpyro.infer.MCMC` that has run.
            name: what to call the sampler; by default NumPyro and the class of its kernel.
            var_names: the sites to keep, by default all. Large deterministic ones are better left out.
            nfe: score evaluations per draw, the warm-up not counted, if you know them.
            seconds: wall clock of the run, if you know it.
            asymptotically_exact: whether the kernel leaves its target invariant; known for NumPyro's own.

        Returns:
            Draws of kind ``"chains"``.

        Raises:
            TypeError: if `mcmc` is something else, such as a dictionary of samples.
            ValueError: if it has not run, or a site is unknown or not numeric.

        Examples:
            >>> import jax, numpyro, numpyro.distributions as dist
            >>> from numpyro.infer import MCMC, NUTS
            >>> def model():
            ...     numpyro.sample("scale", dist.HalfNormal(1.0))
            >>> mcmc = MCMC(NUTS(model), num_warmup=50, num_samples=20, progress_bar=False)
            >>> mcmc.run(jax.random.key(0), extra_fields=("num_steps",))
            >>> draws = Draws.from_numpyro_mcmc(mcmc)
            >>> draws.attributes["sampler"], draws.position["scale"].shape, draws.nfe >= 1
            ('NumPyro NUTS', (1, 20), True)
        """
        from scoresample.inference._from_numpyro_mcmc import draws_from_numpyro_mcmc

        return draws_from_numpyro_mcmc(
            mcmc,
            name=name,
            var_names=var_names,
            nfe=nfe,
            seconds=seconds,
            asymptotically_exact=asymptotically_exact,
        )

    @classmethod
    def from_blackjax(
        cls,
        states: Any,
        infos: Any = None,
        *,
        axes: Sequence[str] | None = None,
        constrain: Constrain | None = None,
        name: str | None = None,
        nfe: float | None = None,
        seconds: float | None = None,
        asymptotically_exact: bool | None = None,
    ) -> "Draws":
        """Draws of a history of BlackJAX states.

        Positions are those of the states, in the space where the sampler moved; pass the `constrain` of the score
        that was sampled to see its sites. Statistics are the log density of the states and every number that the
        infos hold for each draw. The score evaluations per draw are the mean number of integration steps, where the
        infos count them.

        Arguments:
            states: the states of all steps, such as ``blackjax.util.run_inference_algorithm`` returns with the infos
                (``final, history``; then ``Draws.from_blackjax(*history)``), or a tree of positions.
            infos: the infos of all steps, or a dictionary of arrays.
            axes: the leading axes in their order: ``("draw",)``, ``("chain", "draw")`` or ``("draw", "chain")``. Only
                where the log density of the states has a single axis, one chain, can it be left out.
            constrain: position -> named sites; the identity by default.
            name: what to call the sampler.
            nfe: score evaluations per draw, the warm-up not counted, if you know them.
            seconds: wall clock of the run, if you know it.
            asymptotically_exact: whether the sampler leaves its target invariant. By default yes if the infos are
                those of such a sampler, no for unadjusted MCLMC, else unknown, and `compare` asks for care.

        Returns:
            Draws of kind ``"chains"``.

        Raises:
            TypeError: if `states` or `infos` are something else.
            ValueError: if the axes are not known or do not fit.

        Examples:
            >>> import blackjax, jax, jax.numpy as jnp
            >>> from blackjax.util import run_inference_algorithm
            >>> nuts = blackjax.nuts(lambda x: -0.5 * jnp.sum(x**2), 0.5, jnp.ones(2))
            >>> key = jax.random.key(0)
            >>> _, history = run_inference_algorithm(key, nuts, num_steps=20, initial_position=jnp.zeros(2))
            >>> draws = Draws.from_blackjax(*history)
            >>> draws.attributes["sampler"], draws.position.shape, sorted(draws.stats)[:3]
            ('BlackJAX NUTS', (1, 20, 2), ['acceptance_rate', 'diverging', 'energy'])
        """
        from scoresample.inference._from_blackjax import draws_from_blackjax

        return draws_from_blackjax(
            states,
            infos,
            axes=axes,
            constrain=constrain,
            name=name,
            nfe=nfe,
            seconds=seconds,
            asymptotically_exact=asymptotically_exact,
        )

    @property
    def num_chains(self) -> int:
        """Length of the chain axis."""
        return jax.tree.leaves(self.position)[0].shape[0]

    @property
    def num_draws(self) -> int:
        """Length of the draw axis."""
        return jax.tree.leaves(self.position)[0].shape[1]

    @property
    def non_finite(self) -> np.ndarray:
        """Which draws are not finite: (chain, draw)."""
        return self.stats["non_finite"]

    def sites(self) -> dict[str, np.ndarray]:
        """The named sites of all draws, constrained and deterministic, with leading axes (chain, draw)."""
        if self.constrain is named_sites:  # as they are: JAX would round float64 where it is not enabled
            return {name: np.asarray(value) for name, value in named_sites(self.position).items()}
        shape = (self.num_chains, self.num_draws)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self.position)
        named = _constrain_all(self.constrain, flat)
        return {name: np.asarray(value).reshape(*shape, *value.shape[1:]) for name, value in named.items()}

    def to_arviz(self) -> xr.DataTree:
        """The draws as an ArviZ DataTree, in the model's own coordinates.

        Groups are ``posterior`` (constrained and deterministic sites) and ``sample_stats``. Weighted draws are
        resampled with replacement by their weights (systematic resampling, fixed seed); the attribute ``resampled``
        says so.

        Returns:
            A DataTree whose attributes hold the sampler, its settings, NFE, seconds and the versions used.
        """
        from scoresample.inference._arviz import to_datatree

        return to_datatree(self)

    def summary(self) -> pd.DataFrame:
        """ArviZ's summary table: mean, sd, interval, effective sample sizes and R-hat (nan for one chain)."""
        import arviz

        table = arviz.summary(self.to_arviz(), round_to="none")
        assert isinstance(table, pd.DataFrame)
        return table

    def __repr__(self) -> str:
        """A line for people."""
        flagged = int(np.sum(self.stats.get("non_finite", 0)))
        cost = "score evaluations not known" if math.isnan(self.nfe) else f"{self.nfe:.4g} score evaluations per draw"
        time = "time not known" if math.isnan(self.seconds) else f"{self.seconds:.1f} s"
        lines = [
            f"Draws by {self.attributes.get('sampler', 'an unknown sampler')}: {self.num_chains} x {self.num_draws} "
            f"({self.kind}), {cost}, {time}"
        ]
        for name, leaf in self.sites().items():
            lines.append(f"  {name}: {leaf.shape[2:]} {leaf.dtype}")
        if flagged:
            lines.append(f"  {flagged} draws are not finite")
        return "\n".join(lines)


@eqx.filter_jit
def _constrain_all(constrain: Constrain, position: Position) -> dict[str, Array]:
    return jax.vmap(constrain)(position)


class SamplingError(RuntimeError):
    """A run that ended with something wrong in its draws.

    Attributes:
        draws: the draws as they are, for a closer look.
    """

    def __init__(self, message: str, draws: Draws) -> None:
        """Attach the draws to the error."""
        super().__init__(message)
        self.draws = draws

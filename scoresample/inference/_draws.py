"""The one result of every sampler."""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array

from scoresample.scores import Constrain, Position

Kind = Literal["chains", "independent", "interacting"]
"""How draws depend on each other: in chains, not at all, or through a shared population of particles."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Draws:
    """Draws of a sampler, with what is needed to judge them.

    Attributes:
        position: tree of arrays with leading axes (chain, draw). NumPyro models: unconstrained coordinates by site.
        kind: ``"chains"``; ``"independent"`` or ``"interacting"`` draws have one chain, (1, n).
        log_weights: (chain, draw) log weights, or None where all draws count alike.
        stats: (chain, draw) arrays by ArviZ's names: ``lp``, ``acceptance_rate``, ``diverging``, ``energy``,
            ``n_steps``, ``tree_depth``, ``non_finite`` and the like.
        info: facts of the run: ``num_warmup``, ``num_evaluations`` (with the warm-up), ``compile_seconds``, ...
        nfe: score evaluations per draw, the warm-up not counted.
        seconds: wall clock of the call, compilation included.
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

    @property
    def num_chains(self) -> int:
        """Length of the chain axis."""
        return jax.tree.leaves(self.position)[0].shape[0]

    @property
    def num_draws(self) -> int:
        """Length of the draw axis."""
        return jax.tree.leaves(self.position)[0].shape[1]

    def sites(self) -> dict[str, np.ndarray]:
        """The named sites of all draws, constrained and deterministic, with leading axes (chain, draw)."""
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
        lines = [
            f"Draws by {self.attributes.get('sampler', 'an unknown sampler')}: {self.num_chains} x {self.num_draws} "
            f"({self.kind}), {self.nfe:.4g} score evaluations per draw, {self.seconds:.1f} s"
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

"""Paths of fields, scale by scale."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from scoresample.paths import AbstractCascadedPath, AbstractNoiseProcess, AbstractScorePath
from scoresample.scores import Constrain, Position, Structure, named_sites
from scoresample.wavelets._transform import WaveletTransform


class WaveletPath(AbstractCascadedPath):
    """The law of a field as a chain of conditional laws across the scales of an orthogonal wavelet transform.

    ``p(x) = p(x_J) prod_j p(d_j | x_j)`` with x_j the field at scale j (low-pass filtered and decimated j times, x_0
    the field itself) and d_j the details that lead from x_j to x_{j-1}. Sampling goes from coarse to fine: the coarsest
    field, then the details of one scale after another, each with a path of its own, noised and normalised by itself.
    What makes the score of a field with many scales ill-conditioned, the ratio of the variances of its largest and its
    smallest scales, is no part of any conditional law: the number of steps of a stage does not grow with the field,
    and the cost is linear in its sites.

    Exact up to the samplers' discretisation where the stages' scores are the conditional laws' own. Errors of learned
    scores add up over the stages: the Kullback-Leibler divergences do (chain rule).

    Source: Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003, section 3 (algorithm 1).

    Attributes:
        transform: the wavelet transform.
        stages: the path of the coarsest field, and for every scale, coarse to fine, a conditional path of its details,
            whose `given` takes the coarser field.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> transform = ss.WaveletTransform((4,), "haar", levels=1)
        >>> coarse = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
        >>> details = ss.PerturbedScore(
        ...     lambda z, t, low: -z, ss.VP(), structure=jnp.zeros((1, 2)), condition=jnp.zeros(2)
        ... )
        >>> path = ss.WaveletPath(transform, [coarse, details])
        >>> ss.sample(path, ss.ReverseSDE(), key=jax.random.key(0), num_samples=25).position.shape
        (1, 100, 4)
    """

    transform: WaveletTransform
    stages: tuple[Any, ...]
    structure: Structure
    constrain: Constrain

    def __init__(
        self, transform: WaveletTransform, stages: Sequence[Any], *, constrain: Constrain = named_sites
    ) -> None:
        """Put the scales together.

        Arguments:
            transform: the wavelet transform, with as many levels as there are scales of details.
            stages: the path of the coarsest field, shaped like ``transform.shapes[0]``; then, coarse to fine, paths of
                details, (3, h, w) in two dimensions or (1, n) in one, that have `given(low)` for the coarser field, of
                shape (h, w) or (n,), in its own units.
            constrain: position -> named sites.

        Raises:
            TypeError: if a stage is no path, or one of the details has no `given`.
            ValueError: if their number or a shape does not fit the transform.
        """
        self.transform, self.stages = transform, tuple(stages)
        if len(self.stages) != transform.levels + 1:
            raise ValueError(
                f"`stages`: {transform.levels} levels take {transform.levels + 1} stages, the coarsest field and the "
                f"details of each level, got {len(self.stages)}."
            )
        for index, stage in enumerate(self.stages):
            if not isinstance(stage, AbstractScorePath) or (index and not callable(getattr(stage, "given", None))):
                needed = "a path with `given(low)`, such as PerturbedScore(..., condition=low)" if index else "a path"
                raise TypeError(f"`stages`: number {index} must be {needed}, got {type(stage).__name__}.")
            shapes = [leaf.shape for leaf in jax.tree.leaves(stage.structure)]
            if shapes != [self._part_shape(index)]:
                raise ValueError(
                    f"`stages`: number {index} must have one array of shape {self._part_shape(index)}, got {shapes}."
                )
        dtype = jax.tree.leaves(self.stages[-1].structure)[0].dtype
        self.structure = jax.ShapeDtypeStruct(transform.shape, dtype)
        self.constrain = constrain

    def _part_shape(self, index: int) -> tuple[int, ...]:
        low = self.transform.shapes[max(index - 1, 0)]
        return low if index == 0 else (2 ** len(low) - 1, *low)

    def stage_names(self) -> tuple[str, ...]:
        """What each stage draws, by its size."""
        sizes = [" x ".join(str(n) for n in shape) for shape in self.transform.shapes]
        return (f"coarsest field {sizes[0]}", *(f"details {size}" for size in sizes))

    def stage(self, index: int, known: Position | None) -> AbstractScorePath:
        """The path of the coarsest field, or of the details of one scale given the field there."""
        return self.stages[0] if index == 0 else self.stages[index].given(known)

    def joined(self, index: int, known: Any, part: Array) -> Array:
        """The field at the next finer scale."""
        del index
        return part if known is None else self.transform.merge(known, part)

    def parts(self, position: Position) -> tuple[tuple[Array | None, Array], ...]:
        """The fields at all scales and what was added to each, coarse to fine."""
        field, found = position, []
        for _ in range(self.transform.levels):
            field, details = self.transform.split(field)
            found.append((field, details))
        return ((None, field), *reversed(found))

    def log_volume(self) -> float:
        """0: the transform is orthogonal."""
        return 0.0

    def with_process(self, process: AbstractNoiseProcess) -> "WaveletPath":
        """The same scales, each noised by another process.

        Raises:
            TypeError: if a stage has no noise process: local energies are tempered instead.
        """
        for name, stage in zip(self.stage_names(), self.stages, strict=True):
            if not callable(getattr(stage, "with_process", None)):
                raise TypeError(f"`with_process`: {name} is a {type(stage).__name__}, which has no noise process.")
        return eqx.tree_at(lambda p: p.stages, self, tuple(stage.with_process(process) for stage in self.stages))

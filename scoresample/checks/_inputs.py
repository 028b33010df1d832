"""Facts about positions and scores at the door: are they finite, do they fit each other."""

import jax
import numpy as np
from jaxtyping import PyTree

from scoresample.checks._check import Check


def check_finite(values: PyTree, *, what: str = "position") -> Check:
    """Count the entries of a tree of arrays that are not finite.

    Arguments:
        values: any tree of concrete arrays: one position, a batch of them, or their scores.
        what: what the tree stands for, in the singular: "position", "score", "draw".

    Returns:
        A `Check` whose value is the number of NaN and infinite entries; its limit is 0. The cause names the
        arrays that hold them.

    Examples:
        >>> import numpy as np
        >>> check_finite({"mu": np.array([0.0, 1.0])}).passed
        True
        >>> print(check_finite({"mu": np.array([0.0, np.nan])}, what="score").cause)
        1 of 2 entries of the score are not finite (in mu).
    """
    total, bad, where = 0, 0, []
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        array = np.asarray(leaf)
        wrong = int(np.sum(~np.isfinite(array)))
        total += array.size
        bad += wrong
        if wrong:
            where.append(_label(path))
    cause = f"{bad} of {total} entries of the {what} are not finite"
    cause += f" (in {', '.join(where)})." if where else "."
    remedy = (
        f"Evaluate the {what} at one point outside `jax.jit` and look for a logarithm or a root of a number below "
        "zero, a division by zero, or an overflow; in float32 also try float64."
    )
    return Check(f"finite {what}", float(bad), 0.0, bad == 0, cause, remedy)


def check_same_structure(position: PyTree, score: PyTree) -> Check:
    """Compare a score with its position: the same tree, and the same shape in every array.

    Arguments:
        position: a tree of arrays, or of anything with a shape.
        score: what the score function returned at that position.

    Returns:
        A `Check` whose value is the number of arrays that do not fit (1 where the trees themselves differ); its
        limit is 0.

    Examples:
        >>> import numpy as np
        >>> check_same_structure(np.zeros(3), np.zeros(3)).passed
        True
        >>> print(check_same_structure(np.zeros(3), np.zeros(())).cause)
        The score has shape () where the position has shape (3,) (in x).
    """
    name = "score has the position's structure"
    remedy = "Return one number for every number of the position, in the same containers: the gradient of log p."
    tree, other = jax.tree.structure(position), jax.tree.structure(score)
    if tree != other:
        return Check(name, 1.0, 0.0, False, f"The score has the tree {other}, the position has {tree}.", remedy)
    wrong = [
        f"The score has shape {np.shape(score_leaf)} where the position has shape {np.shape(leaf)} (in {_label(path)})."
        for (path, leaf), score_leaf in zip(
            jax.tree_util.tree_leaves_with_path(position), jax.tree.leaves(score), strict=True
        )
        if np.shape(leaf) != np.shape(score_leaf)
    ]
    cause = " ".join(wrong) or "Every array of the score has the shape of the position's."
    return Check(name, float(len(wrong)), 0.0, not wrong, cause, remedy)


def _label(path: tuple[object, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "x"

"""The samplers that a user names on the command line."""

from typing import Any

from scoresample.samplers import (
    AbstractHamiltonian,
    AbstractParticleSampler,
    AbstractSampler,
    BlackJAX,
    available_samplers,
)


def chosen_samplers(
    names: str, target_acceptance: float, *, only_one: bool = False
) -> dict[str, AbstractSampler | AbstractParticleSampler[Any]]:
    """Samplers by the names that a user gave.

    Arguments:
        names: separated by commas.
        target_acceptance: what NUTS and HMC tune to.
        only_one: whether there must be one.

    Returns:
        An instance of each.

    Raises:
        ValueError: if a name is unknown, or there are too few or too many.
    """
    known = available_samplers()
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"there is no sampler {', '.join(map(repr, unknown))}. The samplers are: {', '.join(known)}.")
    if only_one and len(chosen) != 1:
        raise ValueError(f"`--sampler` takes one name, got {names!r}. The samplers are: {', '.join(known)}.")
    if not chosen:
        raise ValueError(f"`--samplers` is empty. The samplers are: {', '.join(known)}.")
    if BlackJAX.name in chosen:
        raise ValueError(
            f"`--samplers`: '{BlackJAX.name}' stands for any BlackJAX algorithm with parameters of your own, which "
            "have no place on the command line. Use ss.BlackJAX(algorithm, ...) in Python."
        )
    tuned = {"target_acceptance_rate": target_acceptance}
    return {
        name: known[name](**tuned) if issubclass(known[name], AbstractHamiltonian) else known[name]() for name in chosen
    }

"""The correctors by their names."""

from typing import Literal, get_args

from scoresample.samplers._base import AbstractSampler
from scoresample.samplers._corrector import AbstractCorrector, LangevinCorrector
from scoresample.samplers._kernel_corrector import KernelCorrector
from scoresample.samplers._metropolis_corrector import MetropolisCorrector
from scoresample.samplers._underdamped_corrector import UnderdampedCorrector

CorrectorName = Literal["langevin", "metropolis", "underdamped"]
CorrectorChoice = CorrectorName | AbstractSampler
"""A name, or a chain sampler to move with at every level."""


def resolve_corrector(choice: CorrectorChoice) -> AbstractCorrector:
    """The corrector that a choice stands for.

    Raises:
        ValueError: if there is no such name.
        TypeError: if it is no sampler.
    """
    if isinstance(choice, AbstractSampler):
        return KernelCorrector(choice)
    match choice:
        case "langevin":
            return LangevinCorrector()
        case "metropolis":
            return MetropolisCorrector()
        case "underdamped":
            return UnderdampedCorrector()
    if isinstance(choice, str):
        raise ValueError(f"`corrector` must be one of {list(get_args(CorrectorName))} or a sampler, got {choice!r}.")
    raise TypeError(
        f"`corrector` must be one of {list(get_args(CorrectorName))} or a chain sampler with its step size, such as "
        f"HMC(step_size=0.5), got {type(choice).__name__}."
    )

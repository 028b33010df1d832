"""Networks for scores: Equinox modules, unbatched."""

from scoresample.nn._denoiser import PreconditionedDenoiser as PreconditionedDenoiser
from scoresample.nn._denoiser import parameter_count as parameter_count
from scoresample.nn._mlp import FiLMBlock as FiLMBlock
from scoresample.nn._mlp import NoiseLevelFeatures as NoiseLevelFeatures
from scoresample.nn._mlp import ResidualMLP as ResidualMLP

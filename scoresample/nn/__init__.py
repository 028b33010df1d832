"""Networks for scores: Equinox modules, unbatched."""

from scoresample.nn._denoiser import DenoiserEnsemble as DenoiserEnsemble
from scoresample.nn._denoiser import Network as Network
from scoresample.nn._denoiser import Parametrisation as Parametrisation
from scoresample.nn._denoiser import PreconditionedDenoiser as PreconditionedDenoiser
from scoresample.nn._denoiser import PreconditionedEnergy as PreconditionedEnergy
from scoresample.nn._denoiser import parameter_count as parameter_count
from scoresample.nn._features import NoiseLevelFeatures as NoiseLevelFeatures
from scoresample.nn._mlp import FiLMBlock as FiLMBlock
from scoresample.nn._mlp import Modulation as Modulation
from scoresample.nn._mlp import ResidualMLP as ResidualMLP
from scoresample.nn._residual_conv import ResidualConv as ResidualConv
from scoresample.nn._scales import AtScale as AtScale
from scoresample.nn._scales import SharedAcrossScales as SharedAcrossScales
from scoresample.nn._unet import UNet as UNet

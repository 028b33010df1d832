"""Sampling with scores: learned, written by hand, or taken from a NumPyro model."""

from scoresample.inference import Draws as Draws
from scoresample.inference import SamplingError as SamplingError
from scoresample.inference import exact_draws as exact_draws
from scoresample.inference import sample as sample
from scoresample.paths import VE as VE
from scoresample.paths import VP as VP
from scoresample.paths import AbstractDensityPath as AbstractDensityPath
from scoresample.paths import AbstractNoiseProcess as AbstractNoiseProcess
from scoresample.paths import AbstractPerturbedScore as AbstractPerturbedScore
from scoresample.paths import AbstractScorePath as AbstractScorePath
from scoresample.paths import PerturbedScore as PerturbedScore
from scoresample.paths import TemperedPath as TemperedPath
from scoresample.paths import perturb as perturb
from scoresample.report import Comparison as Comparison
from scoresample.report import compare as compare
from scoresample.samplers import HMC as HMC
from scoresample.samplers import NUTS as NUTS
from scoresample.samplers import ULA as ULA
from scoresample.samplers import AbstractParticleSampler as AbstractParticleSampler
from scoresample.samplers import AbstractPathSampler as AbstractPathSampler
from scoresample.samplers import AbstractSampler as AbstractSampler
from scoresample.samplers import AnnealedLangevin as AnnealedLangevin
from scoresample.samplers import PredictorCorrector as PredictorCorrector
from scoresample.samplers import ProbabilityFlowODE as ProbabilityFlowODE
from scoresample.samplers import ReverseSDE as ReverseSDE
from scoresample.scores import AbstractDensityScore as AbstractDensityScore
from scoresample.scores import AbstractScore as AbstractScore
from scoresample.scores import DensityScore as DensityScore
from scoresample.scores import Gaussian as Gaussian
from scoresample.scores import GaussianMixture as GaussianMixture
from scoresample.scores import LineIntegralDensity as LineIntegralDensity
from scoresample.scores import Score as Score
from scoresample.scores import from_numpyro as from_numpyro
from scoresample.training import fit_score as fit_score
from scoresample.workflows import compare_samplers as compare_samplers
from scoresample.workflows import fit_score_to_density as fit_score_to_density

__version__ = "0.1.0"

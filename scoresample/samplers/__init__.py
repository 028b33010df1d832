"""Samplers: chains on a score, and particles along a path; one sampler, one file."""

from scoresample.samplers._annealed_langevin import AnnealedLangevin as AnnealedLangevin
from scoresample.samplers._base import AbstractParticleSampler as AbstractParticleSampler
from scoresample.samplers._base import AbstractPathSampler as AbstractPathSampler
from scoresample.samplers._base import AbstractSampler as AbstractSampler
from scoresample.samplers._base import ParticleInfo as ParticleInfo
from scoresample.samplers._base import Plan as Plan
from scoresample.samplers._blackjax import HMC as HMC
from scoresample.samplers._blackjax import NUTS as NUTS
from scoresample.samplers._blackjax import AbstractHamiltonian as AbstractHamiltonian
from scoresample.samplers._blackjax import require_density as require_density
from scoresample.samplers._catalogue import available_samplers as available_samplers
from scoresample.samplers._default import default_sampler as default_sampler
from scoresample.samplers._diffrax import DiffraxSolver as DiffraxSolver
from scoresample.samplers._exponential import ExponentialAdams as ExponentialAdams
from scoresample.samplers._frozen_score import EulerMaruyama as EulerMaruyama
from scoresample.samplers._frozen_score import ExponentialIntegrator as ExponentialIntegrator
from scoresample.samplers._karras_heun import KarrasHeun as KarrasHeun
from scoresample.samplers._langevin import ULA as ULA
from scoresample.samplers._predictor_corrector import PredictorCorrector as PredictorCorrector
from scoresample.samplers._probability_flow import ProbabilityFlowODE as ProbabilityFlowODE
from scoresample.samplers._reverse_sde import ReverseSDE as ReverseSDE
from scoresample.samplers._reverse_solver import AbstractReverseSolver as AbstractReverseSolver

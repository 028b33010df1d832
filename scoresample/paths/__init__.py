"""Paths: ``(x, t) -> grad log p_t(x)``, from a reference (t=1) to the target (t=0)."""

from scoresample.paths._base import AbstractDensityPath as AbstractDensityPath
from scoresample.paths._base import AbstractScorePath as AbstractScorePath
from scoresample.paths._base import FrozenDensityScore as FrozenDensityScore
from scoresample.paths._base import FrozenScore as FrozenScore
from scoresample.paths._base import as_time as as_time
from scoresample.paths._base import score_particles as score_particles
from scoresample.paths._frame import Frame as Frame
from scoresample.paths._frame import make_frame as make_frame
from scoresample.paths._grid import Levels as Levels
from scoresample.paths._grid import check_concrete as check_concrete
from scoresample.paths._grid import levels_at as levels_at
from scoresample.paths._grid import log_snr_grid as log_snr_grid
from scoresample.paths._lipschitz import estimate_lipschitz as estimate_lipschitz
from scoresample.paths._perturbed import AbstractPerturbedScore as AbstractPerturbedScore
from scoresample.paths._perturbed import PerturbedDensity as PerturbedDensity
from scoresample.paths._perturbed import PerturbedScore as PerturbedScore
from scoresample.paths._perturbed import Prediction as Prediction
from scoresample.paths._perturbed import ReclockedScore as ReclockedScore
from scoresample.paths._perturbed import TimeInput as TimeInput
from scoresample.paths._perturbed import denoise_particles as denoise_particles
from scoresample.paths._perturbed import perturb as perturb
from scoresample.paths._perturbed import start_log_snr as start_log_snr
from scoresample.paths._process import VE as VE
from scoresample.paths._process import VP as VP
from scoresample.paths._process import AbstractNoiseProcess as AbstractNoiseProcess
from scoresample.paths._tempered import TemperedPath as TemperedPath

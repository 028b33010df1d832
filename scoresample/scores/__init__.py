"""Scores: ``x -> grad log p(x)``, with or without a density."""

from scoresample.scores._algebra import SumDensityScore as SumDensityScore
from scoresample.scores._algebra import SumScore as SumScore
from scoresample.scores._algebra import TemperedDensityScore as TemperedDensityScore
from scoresample.scores._algebra import TemperedScore as TemperedScore
from scoresample.scores._algebra import add_scores as add_scores
from scoresample.scores._algebra import temper as temper
from scoresample.scores._base import AbstractDensityScore as AbstractDensityScore
from scoresample.scores._base import AbstractScore as AbstractScore
from scoresample.scores._base import Constrain as Constrain
from scoresample.scores._base import Position as Position
from scoresample.scores._base import Structure as Structure
from scoresample.scores._base import check_structure as check_structure
from scoresample.scores._base import named_sites as named_sites
from scoresample.scores._base import random_like as random_like
from scoresample.scores._base import structure_of as structure_of
from scoresample.scores._exact import AbstractExactDensity as AbstractExactDensity
from scoresample.scores._exact import Gaussian as Gaussian
from scoresample.scores._exact import GaussianMixture as GaussianMixture
from scoresample.scores._function import DensityScore as DensityScore
from scoresample.scores._function import Score as Score
from scoresample.scores._line_integral import LineIntegralDensity as LineIntegralDensity
from scoresample.scores._line_integral import line_integral as line_integral
from scoresample.scores._logdensity import logdensity_fn as logdensity_fn
from scoresample.scores._numpyro import from_numpyro as from_numpyro
from scoresample.scores._support import Support as Support
from scoresample.scores._support import as_support as as_support

"""The package's parts inside other libraries' loops."""

from scoresample.interop._blackjax import as_blackjax as as_blackjax
from scoresample.interop._blackjax import tuned as tuned
from scoresample.interop._diffrax import ExponentialAdamsSolver as ExponentialAdamsSolver
from scoresample.interop._diffrax import diffrax_terms as diffrax_terms
from scoresample.interop._numpyro import ScoreKernel as ScoreKernel
from scoresample.interop._pymc import from_pymc as from_pymc

"""The package's parts inside other libraries' loops."""

from scoresample.interop._diffrax import ExponentialAdamsSolver as ExponentialAdamsSolver
from scoresample.interop._diffrax import diffrax_terms as diffrax_terms

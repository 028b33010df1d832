"""How good the draws are: chains on their own, and any draws against a reference."""

from scoresample.diagnostics._chains import ChainStatistics as ChainStatistics
from scoresample.diagnostics._chains import chain_statistics as chain_statistics
from scoresample.diagnostics._chains import effective_sizes as effective_sizes
from scoresample.diagnostics._chains import rank_r_hat as rank_r_hat
from scoresample.diagnostics._distances import energy_distance as energy_distance
from scoresample.diagnostics._distances import sliced_wasserstein as sliced_wasserstein
from scoresample.diagnostics._effective import effective_draws as effective_draws
from scoresample.diagnostics._modes import ModeWeights as ModeWeights
from scoresample.diagnostics._modes import draws_mode_weights as draws_mode_weights
from scoresample.diagnostics._modes import mode_weights as mode_weights
from scoresample.diagnostics._modes import total_variation as total_variation
from scoresample.diagnostics._moments import MomentErrors as MomentErrors
from scoresample.diagnostics._moments import MomentEstimates as MomentEstimates
from scoresample.diagnostics._moments import compare_moments as compare_moments
from scoresample.diagnostics._moments import moment_estimates as moment_estimates
from scoresample.diagnostics._null import Distance as Distance
from scoresample.diagnostics._null import energy_distance_to_reference as energy_distance_to_reference
from scoresample.diagnostics._null import sliced_wasserstein_to_reference as sliced_wasserstein_to_reference
from scoresample.diagnostics._quantities import coordinates as coordinates
from scoresample.diagnostics._quantities import quantities as quantities
from scoresample.diagnostics._weights import kish_ess as kish_ess
from scoresample.diagnostics._weights import normalized_weights as normalized_weights
from scoresample.diagnostics._weights import systematic_resample as systematic_resample

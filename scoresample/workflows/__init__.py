"""Workflows: what needs training, sampling and comparing together."""

from scoresample.workflows._analyse_posterior import analyse_posterior as analyse_posterior
from scoresample.workflows._calibrate import calibrate as calibrate
from scoresample.workflows._calibration import Calibration as Calibration
from scoresample.workflows._certify import Certificate as Certificate
from scoresample.workflows._certify import certify as certify
from scoresample.workflows._compare_samplers import compare_samplers as compare_samplers
from scoresample.workflows._fit_posterior import AmortisedPosterior as AmortisedPosterior
from scoresample.workflows._fit_posterior import fit_posterior as fit_posterior
from scoresample.workflows._fit_wavelet import fit_wavelet as fit_wavelet
from scoresample.workflows._pilot import fit_score_to_density as fit_score_to_density
from scoresample.workflows._plan import SamplingPlan as SamplingPlan
from scoresample.workflows._plan import plan as plan
from scoresample.workflows._polish import polish as polish
from scoresample.workflows._posterior_analysis import PosteriorAnalysis as PosteriorAnalysis
from scoresample.workflows._posterior_predictive import posterior_predictive_check as posterior_predictive_check
from scoresample.workflows._reweight import reweight as reweight
from scoresample.workflows._saved_posterior import load_posterior as load_posterior
from scoresample.workflows._saved_posterior import save_posterior as save_posterior

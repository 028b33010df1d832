"""Multiscale paths: fields as the coefficients of an orthogonal wavelet transform."""

from scoresample.wavelets._conditional_gaussian import ConditionalGaussianField as ConditionalGaussianField
from scoresample.wavelets._conditional_gaussian import low_pass_field as low_pass_field
from scoresample.wavelets._filters import frequency_response as frequency_response
from scoresample.wavelets._fit_energies import fit_wavelet_energies as fit_wavelet_energies
from scoresample.wavelets._local_energy import LocalEnergyPath as LocalEnergyPath
from scoresample.wavelets._path import WaveletPath as WaveletPath
from scoresample.wavelets._perturb_wavelets import perturb_wavelets as perturb_wavelets
from scoresample.wavelets._stages import wavelet_stages as wavelet_stages
from scoresample.wavelets._transform import WaveletTransform as WaveletTransform

"""Multiscale paths: fields as the coefficients of an orthogonal wavelet transform."""

from scoresample.wavelets._filters import frequency_response as frequency_response
from scoresample.wavelets._transform import WaveletTransform as WaveletTransform

"""Wavelets: orthogonal transforms of fields, and paths that go from coarse to fine."""

from scoresample.wavelets._path import WaveletPath as WaveletPath
from scoresample.wavelets._transform import WaveletTransform as WaveletTransform

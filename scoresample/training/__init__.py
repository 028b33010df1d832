"""Training: draws in, perturbed score out."""

from scoresample.training._fit import fit_score as fit_score
from scoresample.training._loss import denoising_loss as denoising_loss
from scoresample.training._record import TrainingRecord as TrainingRecord

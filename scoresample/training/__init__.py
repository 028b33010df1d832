"""Training: draws in, perturbed score out."""

from scoresample.training._archive import read_archive as read_archive
from scoresample.training._archive import write_archive as write_archive
from scoresample.training._checkpoint import load_score as load_score
from scoresample.training._checkpoint import save_score as save_score
from scoresample.training._checkpoint import score_content as score_content
from scoresample.training._checkpoint import score_from as score_from
from scoresample.training._checkpoint import structure_content as structure_content
from scoresample.training._checkpoint import structure_from as structure_from
from scoresample.training._checkpoint import tree_from as tree_from
from scoresample.training._fit import fit_score as fit_score
from scoresample.training._levels import Weighting as Weighting
from scoresample.training._loss import LossName as LossName
from scoresample.training._loss import denoising_loss as denoising_loss
from scoresample.training._loss import implicit_loss as implicit_loss
from scoresample.training._penalties import PenaltyName as PenaltyName
from scoresample.training._regression import fit_mean as fit_mean

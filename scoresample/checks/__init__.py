"""Cheap facts about scores, positions and draws, each with its cause and its remedy."""

from scoresample.checks._check import Check as Check
from scoresample.checks._check import Severity as Severity
from scoresample.checks._check import graded_check as graded_check
from scoresample.checks._inputs import check_finite as check_finite
from scoresample.checks._inputs import check_same_structure as check_same_structure

"""Cheap facts about scores, positions and draws, each with its cause and its remedy."""

from scoresample.checks._check import Check as Check
from scoresample.checks._check import Severity as Severity
from scoresample.checks._check import graded_check as graded_check
from scoresample.checks._conservative import asymmetry as asymmetry
from scoresample.checks._conservative import conservative_checks as conservative_checks
from scoresample.checks._conservative import loop_integral as loop_integral
from scoresample.checks._inputs import check_finite as check_finite
from scoresample.checks._inputs import check_same_structure as check_same_structure
from scoresample.checks._moves import moves_check as moves_check
from scoresample.checks._short_chains import short_chain_checks as short_chain_checks
from scoresample.checks._start import measure_start as measure_start
from scoresample.checks._start import start_check as start_check
from scoresample.checks._start import start_mismatch as start_mismatch
from scoresample.checks._stop import point_stop_check as point_stop_check
from scoresample.checks._stop import stop_check as stop_check
from scoresample.checks._values import value_checks as value_checks

"""Inference: one `sample`, one kind of `Draws`."""

from scoresample.inference._about import settings_of as settings_of
from scoresample.inference._doors import check_count as check_count
from scoresample.inference._doors import check_key as check_key
from scoresample.inference._doors import score_for_chains as score_for_chains
from scoresample.inference._draws import Draws as Draws
from scoresample.inference._draws import Kind as Kind
from scoresample.inference._draws import SamplingError as SamplingError
from scoresample.inference._durable import note_of as note_of
from scoresample.inference._durable import noted as noted
from scoresample.inference._exact import exact_draws as exact_draws
from scoresample.inference._imported import NAMED_SITES as NAMED_SITES
from scoresample.inference._imported import UNKNOWN as UNKNOWN
from scoresample.inference._pathfinder import PathfinderFit as PathfinderFit
from scoresample.inference._pathfinder import pathfinder as pathfinder
from scoresample.inference._progress import progress_bar as progress_bar
from scoresample.inference._progress import wants_progress as wants_progress
from scoresample.inference._sample import sample as sample
from scoresample.inference._stored_draws import load as load

"""Comparisons and their reports: a table, a verdict for every run, and one HTML file to read."""

from scoresample.report._compare import compare as compare
from scoresample.report._comparison import Comparison as Comparison
from scoresample.report._comparison import verdict_lines as verdict_lines
from scoresample.report._format import counted as counted
from scoresample.report._format import human as human
from scoresample.report._format import percent as percent
from scoresample.report._legend import COLOURS as COLOURS
from scoresample.report._parameters import parameter_columns as parameter_columns
from scoresample.report._parameters import parameter_table as parameter_table
from scoresample.report._parameters import parameter_text as parameter_text
from scoresample.report._posterior_page import CalibrationPart as CalibrationPart
from scoresample.report._posterior_page import PosteriorPage as PosteriorPage
from scoresample.report._posterior_page import WeighedDraws as WeighedDraws
from scoresample.report._svg import new_figure as new_figure
from scoresample.report._svg import plain_text as plain_text
from scoresample.report._verdict import Verdict as Verdict
from scoresample.report._verdict import form_verdict as form_verdict

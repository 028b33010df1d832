"""Comparisons and their reports: a table, a verdict for every run, and one HTML file to read."""

from scoresample.report._compare import compare as compare
from scoresample.report._comparison import Comparison as Comparison
from scoresample.report._legend import COLOURS as COLOURS
from scoresample.report._svg import new_figure as new_figure
from scoresample.report._svg import plain_text as plain_text
from scoresample.report._verdict import Verdict as Verdict
from scoresample.report._verdict import form_verdict as form_verdict

"""The command line."""

from scoresample.cli._main import main as main

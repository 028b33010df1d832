"""``python -m scoresample`` is the command line."""

import sys

from scoresample.cli import main

sys.exit(main())

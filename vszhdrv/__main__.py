"""`python -m vszhdrv` is the command line."""

import sys

from vszhdrv.command.process import run

sys.exit(run())

"""`python -m vszhdrv` is the command line."""

import sys

from vszhdrv.command.cli import main

sys.exit(main())

"""`python -m vszhdrv` is the command line."""

import sys

from vszhdrv.cli import main

sys.exit(main())

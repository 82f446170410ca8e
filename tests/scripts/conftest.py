"""The scripts are files, not a package: make them importable as `uv run` makes them, by their folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

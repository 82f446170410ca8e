"""The zhdrv core: the method, tensors in and tensors out. It knows no VapourSynth and nothing above this folder."""

import os

# By default OpenMP's threads wait for one another in a busy loop. Where something else runs, too, they so take the CPU
# from those that they wait for: a training step takes ten times as long (docs/experiments.md). Read as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

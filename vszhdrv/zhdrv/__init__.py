"""The zhdrv core: the method, tensors in and tensors out. It knows no VapourSynth and nothing above this folder."""

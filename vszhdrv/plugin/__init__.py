"""What knows VapourSynth: arguments, frames, colour properties, and the native library behind core.zhdrv."""

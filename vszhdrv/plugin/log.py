"""What the user hears of while things go well, or nearly so: sentences in VapourSynth's log."""

import vapoursynth as vs


def log(sentence: str) -> None:
    """Tell the user how things go."""
    vs.core.log_message(vs.MESSAGE_TYPE_INFORMATION, f"zhdrv: {sentence}")


def warn(sentence: str) -> None:
    """Say something that the user should know."""
    vs.core.log_message(vs.MESSAGE_TYPE_WARNING, f"zhdrv: {sentence}")

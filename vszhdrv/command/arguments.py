"""What may be typed on the command line: the parsers of `zhdrv` and its sub-commands.

Apart from cli.py because what the words mean and what is done about them are two subjects. Nothing heavy is imported:
a mistyped word is told at once.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from vszhdrv.options import OPTIONS

RUNS = Path("runs")
"""Where run folders go without --runs."""
ALREADY_TRAINED = "use the network of an earlier run, never train"


class Parser(argparse.ArgumentParser):
    """argparse with errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"zhdrv: {message} ({self.prog} --help lists the options)\n")


def normal(word: str) -> str:
    """An option's name with underscores, whichever of - and _ it was typed with; anything else as it is."""
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if re.match(r"--\w", name) else word


def number(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be a {'whole number' if kind is int else 'number'}, not {text!r}"
            ) from None

    return parse


def frame_rate(text: str) -> Fraction:
    # an exponent of ten digits would keep Fraction busy for ever
    number = re.fullmatch(r"\d{1,9}(?:\.\d{1,9}|/0*[1-9]\d{0,8})?", text, re.ASCII)
    rate = Fraction(text) if number else Fraction(0)
    if not 0 < rate <= 1000 or rate.denominator > 1_000_000:
        raise argparse.ArgumentTypeError(f"must be frames per second, such as 25, 23.976 or 24000/1001, not {text!r}")
    return rate


def nits(text: str) -> float:
    value = number(float)(text)
    if not (math.isfinite(value) and 0 < value <= 10_000):
        raise argparse.ArgumentTypeError(f"must be over 0 and at most 10000 cd/m2, not {text}")
    return value


def nits_or_none(text: str) -> float:
    value = number(float)(text)
    if not 0 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"must be 0, or over white and at most 10000 cd/m2, not {text}")
    return value


def frame_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a frame's number, 0 or more, not {text!r}")
    return int(text)


def first_and_last(text: str) -> list[int]:
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last:
        raise argparse.ArgumentTypeError(f"must be the first and the last frame's number, such as 0-99, not {text!r}")
    return [first, last]


def width_and_height(text: str) -> list[int]:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be width and height, such as 512x512, not {text!r}")
    return [int(side) for side in match.groups()]


def frame_range(text: str) -> range:
    first, last = first_and_last(text)
    return range(first, last + 1)


def main_parser() -> Parser:
    """zhdrv INPUT [options]."""
    from vszhdrv.version import __version__

    parser = Parser(
        prog="zhdrv",
        description="Train on an SDR clip and write it as HDR: a run folder with "
        "EXR frames, or with --out one file that plays.",
        epilog="zhdrv train INPUT only trains, zhdrv expand INPUT --frames A-B writes a part of the frames. "
        "zhdrv levels INPUT measures the result's MaxCLL and MaxFALL and prints the encoders' arguments. "
        "zhdrv report RUN_FOLDER makes a page to look at. "
        "zhdrv still INPUT OUT writes one frame as a picture to share. "
        "zhdrv shots INPUT lists its shots and the places that they show. "
        "zhdrv export INPUT ONNX writes the expansion for vs-mlrt. "
        "zhdrv cache list|show KEY|clear shows and clears the trained networks that are kept. "
        "Options may be typed with - or _.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zhdrv {__version__}")
    _training(parser, several=True)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train_only", action="store_true", help="train and stop: no frames are written")
    what.add_argument("--already_trained", action="store_true", help=ALREADY_TRAINED)
    _expanding(parser, "1000 with --out, 0 for EXR")
    _frames(parser)
    _no_report(_exr(parser))

    file = parser.add_argument_group(
        "one file that plays",
        "10-bit HEVC in BT.2020 by ffmpeg (libx265), with the input's audio, timestamps and pixel shape. No "
        "run folder is made: the network is kept in the cache. HDR10 is measured before it is encoded; frames beyond "
        "1 GB of memory are expanded twice for it. Odd sizes get one more column or row, a copy of the last.",
    )
    file.add_argument("--out_dir", type=Path, metavar="DIR", help="folder for a file NAME.mkv of each INPUT")
    file.add_argument("--out", type=Path, metavar="FILE", help=".mkv or .mp4 to write")
    file.add_argument("--hlg", action="store_true", default=None, help="HLG instead of HDR10")
    file.add_argument("--crf", type=number(float), metavar="Q", help="libx265's quality, 0 to 51 (12)")
    file.add_argument("--report", action="store_true", default=None, help="also FILE's name.html, to see what was done")
    file.add_argument(
        "--preview", type=Path, metavar="PNG", help="also a picture: a frame beside its source, darker and tone-mapped"
    )
    file.add_argument("--overwrite", action="store_true", default=None, help="replace FILE if it is there")
    return parser


def train_parser() -> Parser:
    """zhdrv train INPUT [options]."""
    parser = Parser(
        prog="zhdrv train",
        description="Train on a clip and stop: a run folder without frames. torchrun --nproc-per-node=N -m vszhdrv "
        "train INPUT lets N processes train one network, each on a card of its own.",
        epilog="The options are those of zhdrv INPUT. Options may be typed with - or _.",
        allow_abbrev=False,
    )
    _training(parser)
    _expanding(parser, "0")
    _exr(parser)
    parser.add_argument(
        "--frames",
        type=frame_range,
        metavar="A-B",
        help="of a film, train only the places that frames A to B show",
    )
    parser.set_defaults(train_only=True, already_trained=False, no_report=True)
    return parser


def expand_parser() -> Parser:
    """zhdrv expand INPUT [options]."""
    parser = Parser(
        prog="zhdrv expand",
        description="Write the EXR frames that are not there yet, all or a part of them, into the run folder of "
        "zhdrv INPUT with the same options. If there is no network of the clip yet, training comes first.",
        epilog="The options are those of zhdrv INPUT. Options may be typed with - or _.",
        allow_abbrev=False,
    )
    _training(parser)
    parser.add_argument("--already_trained", action="store_true", help=ALREADY_TRAINED)
    _expanding(parser, "0")
    _frames(parser)
    _no_report(_exr(parser))
    parser.set_defaults(train_only=False)
    return parser


def report_parser() -> Parser:
    """zhdrv report RUN_FOLDER|INPUT [options]."""
    parser = Parser(
        prog="zhdrv report",
        description="Make one HTML file that shows source and result at any exposure, their light, and what was done. "
        "INPUT may be a run folder, whose settings and frames are taken; the page is then its report.html. Of another "
        "INPUT some frames are expanded for it; if there is no network for the clip yet, it is trained first.",
        epilog="Options may be typed with - or _.",
        allow_abbrev=False,
    )
    _training(parser)
    _expanding(parser, "0")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".html file to write (INPUT's name in this folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    return parser


def still_parser() -> Parser:
    """zhdrv still INPUT OUT [options]."""
    parser = Parser(
        prog="zhdrv still",
        description="Write one frame's expansion as a picture to share: an Ultra HDR JPEG, which any program shows and "
        "an HDR screen shows in HDR, or AVIF, JPEG XL, 16-bit PNG or EXR. If there is no network for the clip yet, it "
        "is trained first.",
        epilog="Options may be typed with - or _.",
        allow_abbrev=False,
    )
    _training(parser)
    _expanding(parser, "0")
    parser.add_argument("out", type=Path, metavar="OUT", help=".jpg, .avif, .jxl, .png or .exr file to write")
    parser.add_argument("--frame", type=frame_number, metavar="N", default=0, help="its number, from 0 (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    return parser


def export_parser() -> Parser:
    """zhdrv export INPUT ONNX [options]."""
    parser = Parser(
        prog="zhdrv export",
        description="Write a clip's expansion as an ONNX graph for vs-mlrt, whose input and output are RGBS in linear "
        "light, of INPUT's size. If there is no network of the clip yet, training comes first.",
        epilog="Options may be typed with - or _.",
        allow_abbrev=False,
    )
    _training(parser)
    parser.add_argument("onnx", type=Path, metavar="ONNX", help=".onnx file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace ONNX if it is there")
    parser.set_defaults(num_streams=None, tile=None, tile_pad=None, graphics=None)  # vs-mlrt has its own
    return parser


def levels_parser() -> Parser:
    """zhdrv levels INPUT [options]."""
    parser = Parser(
        prog="zhdrv levels",
        description="Measure a clip's expansion as it would be delivered (BT.2020, below the peak): MaxCLL, MaxFALL "
        "and the arguments that encoders want, on standard output. The figures are kept: a second time costs nothing.",
        epilog="Options may be typed with - or _.",
        allow_abbrev=False,
    )
    _training(parser)
    _expanding(parser, "1000")
    _frames(parser)
    return parser


def shots_parser() -> Parser:
    """zhdrv shots INPUT [options]."""
    parser = Parser(
        prog="zhdrv shots",
        description="List a clip's shots and the places that they show. The table of --csv, corrected by hand, is what "
        "--shots takes: move a shot's first frame, or give shots of one place the same name.",
        epilog="Options may be typed with - or _.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", metavar="INPUT", type=Path, help="a video file, or a folder of .png frames")
    add("--csv", type=Path, metavar="FILE", help=".csv file to write the table to")
    add("--sheet", type=Path, metavar="FILE", help=".png or .jpg picture to write: a row a place, a picture a shot")
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--shots", metavar="FILE", default="auto", help="take the cuts from there (auto: find them)")
    add("--fps", type=frame_rate, metavar="RATE", help="frames per second of a picture sequence (24)")
    add("--cache", metavar="DIR", help="where what was found is kept; --cache= for nowhere")
    return parser


def cache_parser() -> Parser:
    """zhdrv cache list|show KEY|clear."""
    parser = Parser(
        prog="zhdrv cache", description="Show and clear the trained networks that are kept.", allow_abbrev=False
    )
    parser.add_argument("--cache", metavar="DIR", help="the folder, if it is not the usual one")
    after = Parser(add_help=False)  # --cache may come after the action, too
    after.add_argument("--cache", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|clear")
    actions.add_parser("list", parents=[after], help="every network: key, size, when it was last used, settings")
    show = actions.add_parser("show", parents=[after], help="all that is known about one network")
    show.add_argument("key", metavar="KEY")
    clear = actions.add_parser("clear", parents=[after], help="remove these networks, or all")
    clear.add_argument("keys", nargs="*", metavar="KEY")
    clear.add_argument("--yes", action="store_true", help="without asking")
    return parser


def doctor_parser() -> Parser:
    """zhdrv doctor."""
    parser = Parser(
        prog="zhdrv doctor",
        description="Say what is installed and what is missing, and try a small training and expansion. Exit code 1 "
        "where something is missing that a common job needs.",
        allow_abbrev=False,
    )
    option(parser, "cache", metavar="DIR")
    return parser


def option(parser: Parser, name: str, usually: str = "", **how: Any) -> None:
    """Add --NAME, which means what core.zhdrv's argument of this name means."""
    parser.add_argument(f"--{name}", help=OPTIONS[name] + (f" ({usually})" if usually else ""), **how)


def _training(parser: Parser, *, several: bool = False) -> None:
    """What is trained on, how, and where the network is kept."""
    add = parser.add_argument
    add(
        "input",
        metavar="INPUT",
        nargs="+" if several else None,
        type=Path,
        help="a video file, a folder of pictures, a script (.vpy), or one picture (--data_type image)",
    )
    option(parser, "preset", "fast")
    option(parser, "n_exp_down", "2", type=number(int), metavar="N")
    option(parser, "n_exp_up", "2", type=number(int), metavar="N")
    option(parser, "epochs", "the preset's", type=number(int), metavar="N")
    option(parser, "lr", "the preset's", type=number(float), metavar="RATE")
    option(parser, "alpha", "the preset's", type=number(float), metavar="A")
    option(parser, "seed", "0", type=number(int), metavar="N")
    option(parser, "train_range", type=first_and_last, metavar="A-B")
    option(parser, "shots", "auto", metavar="FILE")
    option(parser, "device", "auto", metavar="DEVICE", default="auto")
    option(parser, "precision", "auto", metavar="NAME", default="auto")
    add("--data_type", choices=("video", "image"), default="video", help="image: train on single pictures")
    add("--source", choices=("bs", "ffms2", "lsmas"), help="the source filter that opens a video (ffms2, else bs)")
    add("--fps", type=frame_rate, metavar="RATE", help="frames per second of a picture sequence (24)")
    for name in ("matrix_in", "transfer_in", "range_in"):
        option(parser, name, metavar="NAME")
    option(parser, "cache", metavar="DIR")
    add("--progress", choices=("text", "json"), default="text", help="json: an object a line on standard error")


def _expanding(parser: Parser, peak: str) -> None:
    """How frames are expanded, and how bright the result is."""
    option(parser, "num_streams", type=number(int), metavar="N")
    option(parser, "tile", type=width_and_height, metavar="WxH")
    option(parser, "tile_pad", type=number(int), metavar="N")
    option(parser, "graphics", metavar="NAME")
    option(parser, "strength", "1", type=number(float), metavar="S", default=1.0)
    option(parser, "white", "203", type=nits, metavar="NITS", default=203.0)
    option(parser, "peak", peak, type=nits_or_none, metavar="NITS")


def _no_report(frames: argparse._ArgumentGroup) -> None:
    frames.add_argument("--no_report", action="store_true", default=None, help="leave report.html out")


def _frames(parser: Parser) -> None:
    """Which frames are expanded."""
    parser.add_argument(
        "--frames",
        type=frame_range,
        metavar="A-B",
        help="expand only those from A to B, which is the last frame if there are fewer; all are trained on, "
        "of a film those of the places that they show",
    )


def _exr(parser: Parser) -> argparse._ArgumentGroup:
    """What EXR files are written, and where; None stands for what was not typed."""
    frames = parser.add_argument_group("EXR frames")
    frames.add_argument("--runs", type=Path, metavar="DIR", help=f"where the run folder goes ({RUNS})")
    depth = frames.add_mutually_exclusive_group()
    depth.add_argument("--half", action="store_true", default=None, help="16-bit float (default)")
    depth.add_argument("--float", action="store_true", default=None, help="32-bit float")
    frames.add_argument("--compression", metavar="NAME", help="none, zip (default), zips, piz, dwaa, dwab, htj2k32")
    return frames

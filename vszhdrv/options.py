"""What each argument of core.zhdrv means, in one place: `--help`, docstrings and README's table say the same.

Module of the ground floor: it imports nothing.
"""

from typing import Final

OPTIONS: Final[dict[str, str]] = {
    "preset": '"fast": one to two minutes on two CPU cores; "draft": seconds; "paper": hours to days, as published',
    "n_exp_down": "how far above white highlights may reach, in steps of two stops: 1 to 6, paper from 0",
    "n_exp_up": "brighter exposures that paper merges, in steps of two stops, 0 to 6; fast does not use it",
    "epochs": "passes of training, 1 to 100000; fast: of 50 steps each, the last fifth of them its second round",
    "lr": "learning rate, over 0 and at most 1; fast: its peak",
    "alpha": "weight of the temporal loss, 0 to 1; 0 for stills",
    "seed": "seed of everything that is drawn at random, 0 to 2147483647",
    "still": "1: image mode, for single pictures and slide shows",
    "train_range": "first and last frame to train on, counted from 0; all frames are expanded",
    "shots": '"auto": one network a place that the shots show; "off": one for all; or a file or list of cuts (fast)',
    "device": '"auto", "cpu", "cuda:0" (NVIDIA, AMD), "xpu:0" (Intel) or "mps" (Apple)',
    "precision": '"auto", "bf16" or "fp32"; auto: bf16 where the device computes it natively',
    "matrix_in": "the clip's matrix where its properties do not say, by resize's names (709, 470bg, ...)",
    "transfer_in": 'the same for its transfer (709, srgb, linear, ...); "camera" undoes the camera\'s curve',
    "range_in": "the same for its range (full, limited)",
    "cache": 'folder for trained networks; "": keep nothing',
    "weights": "file written by Train: use it and do not train",
    "train": "0: never train; an error where there is no network yet",
    "when": '"call": train before the call returns; "frame": when the first frame is requested',
    "strength": "how much of the expansion, 0 to 1, interpolated in stops; 0 is the linearised source",
    "peak": "maximum in nits, over white, to which brighter pixels roll off; 0: no limit",
    "white": "nits of SDR white (1.0); 203 by ITU-R BT.2408",
    "tile": "width and height of the tiles of large frames, multiples of 64; smaller ones need less memory",
    "tile_pad": "overlap of tiles in pixels, 0 or more; default: the network's receptive field, which leaves no seams",
    "num_streams": "frames computed at the same time, 1 to 64; default: as many as threads and memory allow",
    "graphics": '"auto": white of pages, slides, cartoons and letters stays as it is; "off": it is expanded',
}
"""Meaning of the arguments by their names: one line each, with range and unit."""

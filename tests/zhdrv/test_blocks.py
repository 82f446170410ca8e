"""The network's first convolution: blocks of pixels, and the areas in which something clips."""

import pytest
import torch
from torch.nn import functional as F

from vszhdrv.zhdrv.blocks import Part
from vszhdrv.zhdrv.camera import CLIPPED
from vszhdrv.zhdrv.config import Architecture, Head
from vszhdrv.zhdrv.network import UNet


@pytest.mark.parametrize("fold", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("head", ["stops", "ratio"])
def test_blocks_are_seen_as_pixels_side_by_side(head: Head, fold: int) -> None:
    model = UNet(Architecture((4, 4), head, fold))
    x = torch.rand(2, 3, 3 * fold, 4 * fold)
    x[..., :fold, :] = 1.0
    told = [x - 0.5, (x >= CLIPPED).float() - 0.5] if head == "stops" else [x]
    blocks = torch.cat([F.pixel_unshuffle(each, fold) for each in told], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_finest(x), F.relu(model.encoder[0](blocks)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fold", [1, 2, 4, 16])
@pytest.mark.parametrize(
    "areas",
    [
        [],
        [(slice(0, 5), slice(0, 6))],
        [(slice(0, 2), slice(0, 1)), (slice(0, 2), slice(4, 6)), (slice(2, 5), slice(2, 3))],
        [(slice(4, 5), slice(5, 6)), (slice(1, 2), slice(1, 3)), (slice(2, 3), slice(2, 4))],
    ],
    ids=["nowhere", "everywhere", "in corners", "side by side"],
)
def test_areas_outside_which_nothing_clips_make_no_difference(fold: int, areas: list[Part]) -> None:
    model = UNet(Architecture((4, 4), "stops", fold))
    x = torch.rand(2, 3, 5 * fold, 6 * fold) * 0.9
    for area in areas:
        rows, columns = (slice(side.start * fold, side.stop * fold) for side in area)
        x[..., rows, columns] += 0.2  # half of it clips
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_finest(x, areas), model.encode_finest(x), rtol=0, atol=1e-5)

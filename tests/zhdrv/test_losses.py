"""The objectives against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from vszhdrv.zhdrv import losses

E = 0.25 / 255


def grey(value: float) -> Tensor:
    return torch.full((1, 3, 2, 2), value)


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32)[None, :, None, None].expand(1, 3, 2, 2)


def test_l1_cosine_by_hand() -> None:
    assert losses.l1_cosine(grey(0.3), grey(0.3)) == pytest.approx(0, abs=1e-5)
    assert losses.l1_cosine(grey(0.6), grey(0.2)) == pytest.approx(0.4, abs=1e-5)  # the same hue
    assert losses.l1_cosine(colour(1, 0, 0), colour(0, 1, 0)) == pytest.approx(2 / 3 + 5)  # hues at right angles
    assert losses.l1_cosine(colour(1, 1, 0), colour(1, 0, 0)) == pytest.approx(1 / 3 + 5 * (1 - 0.5**0.5))


def test_reconstruction_by_hand() -> None:
    # delta * f = 0.4 against 0.2; o / delta = 0.4 against 0.8
    expected = 4 * (0.5 - 0.2 / (0.8 + E)) ** 2 + abs(0.4 - 0.2) + 0.5 * abs(0.2 / (0.5 + E) - 0.8)
    assert losses.reconstruction(grey(0.5), grey(0.2), grey(0.8)) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(4 * 0.0625 + 0.2 + 0.5 * 0.4, abs=5e-3)


def test_reconstruction_clips_the_way_back() -> None:
    # o / delta = 4 is white, as f is
    expected = 4 * (0.2 - 0.8 / (1 + E)) ** 2 + abs(0.2 - 0.8)
    assert losses.reconstruction(grey(0.2), grey(0.8), grey(1.0)) == pytest.approx(expected, abs=1e-6)


def test_reconstruction_is_nearly_nothing_for_the_right_ratio() -> None:
    assert losses.reconstruction(grey(0.5), grey(0.4), grey(0.8)) < 2e-3


def test_black_gives_finite_gradients() -> None:
    delta = grey(0.5).requires_grad_()
    losses.reconstruction(delta, grey(0.0), grey(0.0)).backward()
    assert delta.grad is not None and delta.grad.isfinite().all()


def test_the_change_in_time_must_match() -> None:
    # 0.2 to 0.5 is predicted, 0.1 to 0.2 is true
    assert losses.temporal(grey(0.2), grey(0.5), grey(0.1), grey(0.2)) == pytest.approx(0.2**2)
    assert losses.temporal(grey(0.7), grey(0.8), grey(0.1), grey(0.2)) == pytest.approx(0, abs=1e-6)


SHIFT = torch.full((1, 1, 1, 1), 2.0)
HALF_A_STOP_UNDER_WHITE = 0.5 ** (0.5 / 2.2)  # in the working encoding: 1.5 stops over white when shifted by 2


def divided(mean: losses.Mean) -> Tensor:
    return mean.sum / mean.weight.clamp(min=1)


def wrong(stops: Tensor, sdr: Tensor, f: Tensor, shift_stops: Tensor = SHIFT) -> Tensor:
    return divided(losses.censored(stops, losses.truth(sdr, f, shift_stops), losses.estimate(sdr)))


def test_known_clipped_pixels_want_their_true_stops() -> None:
    sdr, f = grey(HALF_A_STOP_UNDER_WHITE), grey(1.0)
    right = wrong(grey(1.5), sdr, f)
    assert right == pytest.approx(0, abs=1e-6)
    assert wrong(grey(1.4), sdr, f) > right
    assert wrong(grey(1.6), sdr, f) > right
    assert wrong(grey(2.5), sdr, f) > wrong(grey(1.6), sdr, f)


def test_where_the_source_clips_too_too_little_is_wrong_and_more_is_held_to_the_estimate() -> None:
    def loss(stops: float) -> float:
        return wrong(grey(stops), grey(1.0), grey(1.0)).item()

    def linear(error: float) -> float:
        return losses.KNEE_STOPS * (error - losses.KNEE_STOPS / 2)  # Huber's loss beyond the knee

    estimated = losses.estimate(grey(1.0)).unique().item()
    likeliest = 2 + estimated
    assert loss(likeliest) == pytest.approx(0, abs=1e-6)
    assert loss(likeliest + 0.5) == pytest.approx(losses.ESTIMATE_WEIGHT * linear(0.5))
    assert loss(likeliest - 0.5) == pytest.approx(losses.ESTIMATE_WEIGHT * linear(0.5))
    assert loss(1.0) == pytest.approx(linear(1) + losses.ESTIMATE_WEIGHT * linear(estimated + 1))


def lamp(surround: float, side: int = 64) -> Tensor:
    """A white square of 8x8 pixels."""
    sdr = torch.full((1, 3, side, side), surround)
    sdr[..., 24:32, 24:32] = 1.0
    return sdr


def expected_estimate(surround: float, channels: int) -> float:
    """By hand, of what clips in so many channels beside `surround` (working encoding)."""
    below_white = -2.2 * math.log2(surround)
    return losses.ESTIMATE_STOPS + losses.ESTIMATE_PER_STOP * below_white + losses.ESTIMATE_PER_CHANNEL * channels


@pytest.mark.parametrize("surround", [0.9, 0.5, 0.3])
def test_the_darker_the_rim_the_brighter_what_clips(surround: float) -> None:
    inside = losses.estimate(lamp(surround))[..., 24:32, 24:32]
    torch.testing.assert_close(inside, torch.full_like(inside, expected_estimate(surround, 3)), rtol=0, atol=1e-2)


def test_the_estimate_is_of_each_channel_and_of_how_many_clip() -> None:
    sdr = lamp(0.5)
    sdr[:, 1] = 0.3  # green does not clip
    sdr[:, 2, 24:32, 24:28] = 0.7  # half of blue neither, and has a brighter border
    red, _, blue = losses.estimate(sdr)[0, :, 26, 29]
    assert red == pytest.approx(expected_estimate(0.5, 2), abs=2e-3)
    assert expected_estimate(0.7, 2) < blue < expected_estimate(0.5, 2)
    assert losses.estimate(sdr)[0, 0, 26, 25] == pytest.approx(expected_estimate(0.5, 1), abs=2e-3)


def test_the_estimate_is_local() -> None:
    sdr = torch.cat((lamp(0.9, 128), lamp(0.3, 128)), dim=3)
    left, right = losses.estimate(sdr)[0, 0, 28, [28, 128 + 28]]
    assert left == pytest.approx(expected_estimate(0.9, 3), abs=0.02)
    assert right == pytest.approx(expected_estimate(0.3, 3), abs=0.02)


def test_the_estimate_has_bounds() -> None:
    assert losses.estimate(lamp(0.01))[0, 0, 26, 26] == losses.HIGHEST_ESTIMATE


def test_what_was_painted_over_is_no_border() -> None:
    painted = lamp(0.6)
    painted[..., 26:31, 22:28] = 0.0
    assert losses.estimate(painted)[0, 0, 24, 30] == pytest.approx(expected_estimate(0.6, 3), abs=2e-3)


def test_without_a_border_or_a_clipped_pixel_the_estimate_is_finite_and_not_negative() -> None:
    assert losses.estimate(torch.ones(1, 3, 17, 30)).unique() == pytest.approx(expected_estimate(1, 3))
    assert losses.estimate(torch.zeros(1, 3, 17, 30)).unique() == 0


def test_in_compressed_clips_what_is_nearly_white_is_no_border() -> None:
    sdr = lamp(0.5)
    sdr[..., 28, 28] = 0.97
    assert losses.estimate(sdr, white=0.95)[0, 0, 26, 26] == pytest.approx(expected_estimate(0.5, 3), abs=2e-3)
    assert losses.estimate(sdr)[0, 0, 26, 26] < expected_estimate(0.5, 3) - 0.1


def test_pixels_that_do_not_clip_do_not_count() -> None:
    sdr, f = grey(0.3).clone(), grey(0.6).clone()
    f[..., 0] = 1.0
    sdr[..., 0] = HALF_A_STOP_UNDER_WHITE
    stops = grey(1.3).clone()
    alone = wrong(grey(1.3)[..., :1], sdr[..., :1], f[..., :1])
    stops[..., 1] = 99.0
    assert wrong(stops, sdr, f) == pytest.approx(alone.item())


def test_a_picture_without_a_clipped_pixel_teaches_nothing() -> None:
    stops = grey(1.0).requires_grad_()
    loss = wrong(stops, grey(0.3), grey(0.6))
    loss.backward()
    assert loss == 0
    assert stops.grad is not None and (stops.grad == 0).all()


def test_each_picture_of_a_batch_has_its_own_shift() -> None:
    shifts = torch.tensor([1.0, 3.0])[:, None, None, None]
    stops = torch.cat((grey(0.5), grey(2.5)))
    both = torch.cat((grey(HALF_A_STOP_UNDER_WHITE),) * 2)
    assert wrong(stops, both, torch.ones_like(both), shifts) == pytest.approx(0, abs=1e-6)
    assert wrong(stops, both, torch.ones_like(both), shifts.flip(0)) > 0.1


TWO_SHIFTS = torch.full((2, 1, 1, 1), 2.0)


def test_an_error_that_stays_the_same_from_frame_to_frame_is_steady() -> None:
    sdr, f = torch.cat((grey(HALF_A_STOP_UNDER_WHITE),) * 2), torch.ones(2, *grey(1.0).shape[1:])

    def loss(sdr: Tensor, before: float, after: float) -> float:
        stops = torch.cat((grey(before), grey(after)))
        return divided(losses.steady(stops, losses.truth(sdr, f, TWO_SHIFTS))).item()

    assert loss(sdr, 1.5, 1.5) == loss(sdr, 2.5, 2.5) == 0
    assert loss(sdr, 1.5, 2.5) == pytest.approx(losses.KNEE_STOPS * (1 - losses.KNEE_STOPS / 2))
    brighter = torch.cat((grey(HALF_A_STOP_UNDER_WHITE), grey(1.0 / 1.001)))  # half a stop more light, and told so
    assert loss(brighter, 1.5, 2.0) == pytest.approx(0, abs=1e-4)


def test_only_where_both_truths_are_known_can_an_error_be_unsteady() -> None:
    stops = torch.cat((grey(1.5), grey(9.0)))
    for sdr, f in (
        (torch.cat((grey(HALF_A_STOP_UNDER_WHITE), grey(1.0))), torch.ones_like(stops)),
        (torch.cat((grey(HALF_A_STOP_UNDER_WHITE),) * 2), torch.cat((grey(1.0), grey(0.5)))),
    ):
        assert divided(losses.steady(stops, losses.truth(sdr, f, TWO_SHIFTS))) == 0

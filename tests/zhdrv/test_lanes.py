"""Threads that share work: how many each lane has, and that results keep their order."""

import threading
from collections.abc import Callable

import pytest
import torch

from vszhdrv.zhdrv.lanes import Lanes, lane, side_by_side


def test_lanes_share_the_threads_and_keep_the_order_of_their_parts(set_threads: Callable[[int], None]) -> None:
    set_threads(5)
    both = threading.Barrier(2, timeout=10)

    def work(part: int) -> tuple[int, int]:
        both.wait()  # broken unless two are in here
        return part, torch.get_num_threads()

    with Lanes(torch.device("cpu"), 2) as lanes:
        assert lanes.count == 2
        assert lanes.map(work, [7, 5, 6, 4]) == [(7, 2), (5, 2), (6, 2), (4, 2)]
        with pytest.raises(ZeroDivisionError):
            lanes.map(lambda part: 1 / part, [1, 0])
    with Lanes(torch.device("cpu"), 8) as lanes:
        assert lanes.count == 5
    for most, threads, each in ((2, 1, 1), (2, 9, 2), (1, 1, 1), (1, None, 5)):
        with Lanes(torch.device("cpu"), most, threads) as lanes:
            assert lanes.map(lambda _: torch.get_num_threads(), range(3)) == [each] * 3
            with lanes.between():
                assert torch.get_num_threads() == each
    assert torch.get_num_threads() == 5


@pytest.mark.parametrize(("device", "most"), [("cpu", 1), ("cuda:0", 4), ("mps", 4)])
def test_one_lane_is_the_thread_itself(device: str, most: int) -> None:
    with Lanes(torch.device(device), most) as lanes:
        assert lanes.count == 1
        assert lanes.map(lambda part: (part, threading.current_thread()), [2, 1]) == [
            (2, threading.current_thread()),
            (1, threading.current_thread()),
        ]
        threads = torch.get_num_threads()
        with lanes.between():  # on a card, in the queue that the weights are in
            assert torch.get_num_threads() == threads


def test_a_lane_is_shared_out_among_parts_side_by_side(set_threads: Callable[[int], None]) -> None:
    set_threads(5)
    both = threading.Barrier(2, timeout=10)

    def work(part: int) -> tuple[int, int, bool, bool]:
        both.wait()  # broken unless two are in here
        return part, torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    assert side_by_side(work, [7, 5]) == [(7, 2, False, False), (5, 2, False, False)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert side_by_side(work, [7, 5]) == [(7, 2, True, True), (5, 2, True, True)]
    assert side_by_side(lambda _: torch.get_num_threads(), range(9)) == [1] * 9
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 / part, [1, 0])
    assert torch.get_num_threads() == 5


def test_a_parts_own_parts_follow_one_another(set_threads: Callable[[int], None]) -> None:
    set_threads(5)
    both = threading.Barrier(2, timeout=10)
    Seen = tuple[int, int, threading.Thread]

    def work(part: int) -> list[Seen]:
        def own(number: int) -> Seen:
            return part + number, torch.get_num_threads(), threading.current_thread()

        both.wait()
        return side_by_side(own, [1, 2])

    first, second = side_by_side(work, [0, 10])
    (here,), (there,) = ({thread for *_, thread in found} for found in (first, second))
    assert first == [(1, 2, here), (2, 2, here)] and second == [(11, 2, there), (12, 2, there)]
    assert len({here, there, threading.current_thread()}) == 3


@pytest.mark.parametrize(("threads", "parts"), [(1, [2, 1]), (4, [2]), (4, [])])
def test_one_thread_or_one_part_has_no_other_beside_it(
    threads: int, parts: list[int], set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    here = threading.current_thread()
    assert side_by_side(lambda part: (part, threading.current_thread()), parts) == [(k, here) for k in parts]


def test_a_lane_has_its_own_number_of_threads_and_leaves_those_of_others_alone(
    set_threads: Callable[[int], None],
) -> None:
    cpu = torch.device("cpu")

    def in_a_new_thread(threads: int | None) -> list[int]:
        seen: list[int] = []

        def work() -> None:
            if threads is not None:
                for count in (threads, threads + 1, threads):
                    with lane(cpu, count):
                        seen.append(torch.get_num_threads())  # what OpenMP would start in this thread
            seen.append(torch.get_num_threads())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return seen

    set_threads(4)
    assert in_a_new_thread(1) == [1, 2, 1, 4]
    assert in_a_new_thread(2) == [2, 3, 2, 4]
    assert torch.get_num_threads() == 4
    assert in_a_new_thread(None) == [4]

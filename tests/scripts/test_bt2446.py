"""Both curves of BT.2446 at points that can be worked out by hand."""

import bt2446
import numpy as np
import pytest


def grey(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], 3, axis=1)


def test_method_a_turns_100_nits_into_1000() -> None:
    result = bt2446.method_a(grey(0, 0.5, 1))
    assert result[0] == pytest.approx(0, abs=1e-6)
    assert result[2] == pytest.approx(10, rel=0.01)
    assert (np.ptp(result, axis=1) < 1e-3).all()  # grey stays grey


def test_method_c_is_a_line_that_bends_without_a_step() -> None:
    low, knee, above, white = bt2446.method_c(grey(0.2, 0.5849, 0.5851, 1))
    assert low == pytest.approx(0.2 / bt2446.K1, rel=1e-3)
    assert above == pytest.approx(knee, rel=2e-3)
    assert white == pytest.approx(3.32, rel=0.01)


@pytest.mark.parametrize("method", bt2446.METHODS.values(), ids=list(bt2446.METHODS))
def test_light_never_falls_where_the_source_rises(method: bt2446.Callable) -> None:
    assert (np.diff(method(grey(*np.linspace(0, 1.2, 200)))[:, 1]) >= -1e-6).all()

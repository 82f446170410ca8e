"""Whole numbers rounded up."""


def ceil_div(number: int, by: int) -> int:
    """The quotient, rounded up."""
    return -(-number // by)


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is not less than the number."""
    return ceil_div(number, multiple) * multiple

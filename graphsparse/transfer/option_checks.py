"""Checks of options of the transfer methods, with errors that say what came and what was expected."""

import numbers


def check_share(value: object, name: str) -> float:
    """Return a number in [0, 1] as a float, or refuse what is none.

    Example:
        >>> check_share(1, "alpha")
        1.0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"'{name}' must be a number in [0, 1] (got {value!r} of type {type(value).__name__})")
    number = float(value)
    if not 0 <= number <= 1:  # also refuses NaN
        raise ValueError(f"'{name}' must be in [0, 1] (got {value!r})")
    return number


def check_count(value: object, name: str, least: int = 0) -> int:
    """Return an integer that is at least some number, or refuse what is none.

    Example:
        >>> check_count(5, "K")
        5
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"'{name}' must be an integer (got {value!r} of type {type(value).__name__})")
    if value < least:
        raise ValueError(f"'{name}' must be at least {least} (got {value})")
    return int(value)

"""Gates, shares, sizes and thread counts as users write them."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from farm.core.selector import quantity

#: A bound on a metric, as a gate is written.
GATE = re.compile(
    r"^\s*(?P<op><=|>=|==|<|>)\s*(?P<value>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"(?:\s*x\s+(?P<base>host|eager_fp32|eager_quantised))?\s*$"
)
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


def exact_share(value: object) -> Fraction:
    """Read a percentage (`95%`) or a fraction (0.95) exactly as it is written.

    Raises:
        ValueError: It is neither, or not between 0 and 1.
    """
    match = _PERCENT.match(value) if isinstance(value, str) else None
    if match is not None:
        found = Fraction(match[1]) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        found = Fraction(str(value))
    else:
        raise ValueError(f"{value!r} is no percentage; write for example `95%` or 0.95")
    if not 0 <= found <= 1:
        raise ValueError(f"{value} is not between 0% and 100%")
    return found


def share(value: object) -> float:
    """Read a percentage or a fraction as a number.

    Raises:
        ValueError: As exact_share.
    """
    return float(exact_share(value))


def accepted_loss(text: str) -> float | None:
    """Read `gates.regress`: a percentage; None is `auto`.

    Raises:
        ValueError: It is neither.
    """
    if text == "auto":
        return None
    try:
        return share(text)
    except ValueError as error:
        raise ValueError(
            f"regress: {text!r} is neither `auto` nor a percentage such as `2%`"
        ) from error


def threads(value: object) -> int:
    """Read a number of threads; `auto` is 0.

    Raises:
        ValueError: It is neither.
    """
    if value == "auto":
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256:
        return value
    raise ValueError("write `auto` or a number from 1 to 256")


def size(value: object) -> int:
    """Read a size such as `6GiB`, in bytes.

    Raises:
        ValueError: It is none.
    """
    found = quantity(str(value)) if isinstance(value, str | int) else None
    if found is None or found < 1:
        raise ValueError("write a size such as `6GiB`")
    return int(found)

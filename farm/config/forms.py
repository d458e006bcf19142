"""Forms that the keys of every config share: names, counts, and objects without unknown keys."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

_T = TypeVar("_T")

Positive = Annotated[int, Field(ge=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=100)]

#: One release of a package, no range of them.
Version = Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+!]*$", max_length=100)]


def distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    """Refuse a value that is there twice: it would be measured, or planned, twice.

    Raises:
        ValueError: Names it.
    """
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice")
    return values


class Form(BaseModel):
    """Keys of one object: unknown ones are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

"""Forms that the keys of every config share: names, counts, and objects without unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

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

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` and YAML's `yes` and `on` where no switch is: they would be read as 1."""
        field = cls.model_fields[info.field_name or ""]
        if _has_switch(value) and not _takes_switch(field.annotation):
            raise ValueError("true and false are no value of it")
        return value


def _has_switch(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, bool) for one in values)


def _takes_switch(annotation: Any) -> bool:
    known = (bool, object, Any, True, False)
    return any(annotation is one for one in known) or any(map(_takes_switch, get_args(annotation)))

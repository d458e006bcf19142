"""The `deploy` of a run config: what a nightly ships that ends green."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from farm.config.forms import Form
from farm.core.deployment import Stages, parse_stages
from farm.core.durations import parse_duration
from farm.core.errors import ConfigError
from farm.core.selector import parse_selector
from farm.core.spec import DeployWish


class DeployConfig(Form):
    """Which devices get what passed, and in which stages. Never after anything but exit code 0."""

    to: Annotated[str, Field(min_length=1)] = Field(
        description="Selector of the devices, such as `ring=canary`."
    )
    stages: tuple[int | str, ...] = Field(
        ("100%",), description="Devices that each stage adds up to: numbers, or shares of all."
    )
    wait: str = Field("", description="Between a stage's switch and its check, such as `10min`.")
    name: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,59})?$")
    cells: tuple[str, ...] = Field((), description="Cell ids or globs; default: whatever passed.")

    @field_validator("to")
    @classmethod
    def _readable(cls, to: str) -> str:
        try:
            parse_selector(to)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return to

    @field_validator("stages")
    @classmethod
    def _growing(cls, stages: tuple[int | str, ...]) -> tuple[int | str, ...]:
        _stages(stages)
        return stages

    @field_validator("wait")
    @classmethod
    def _time(cls, wait: str) -> str:
        if wait:
            parse_duration(wait)
        return wait

    @property
    def wish(self) -> DeployWish:
        """As core has it."""
        wait_s = parse_duration(self.wait) if self.wait else 0.0
        return DeployWish(self.to, _stages(self.stages), wait_s, self.name, self.cells)


def _stages(stages: tuple[int | str, ...]) -> Stages:
    return parse_stages(",".join(str(stage) for stage in stages))

"""What users may write in inventories: pydantic models, unknown keys refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from farm.config.forms import Form, Name
from farm.core.device import DeviceFacts
from farm.core.names import meant

#: Keys that speak of one kind of connection alone.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "adb": ("serial", "adb_server"),
    "ssh": ("host", "user", "port", "identity", "known_hosts"),
    "sim": ("sim",),
}
_SERVER = re.compile(r"(?:\[[^\]\s]+\]|[^\s/@]+):[0-9]{1,5}")
_FACTS = tuple(field.name for field in fields(DeviceFacts))


class ThermalConfig(Form):
    """When a device is too warm to measure."""

    battery_max_c: Annotated[float, Field(gt=0)] | None = None
    wait_max_s: Annotated[float, Field(ge=0)] = 600.0


class CommandStep(Form):
    """A recovery step that is a command on the host."""

    command: str = Field(min_length=1)


class DeviceConfig(Form):
    """One device of an inventory."""

    name: Name
    transport: Literal["adb", "ssh", "local", "sim"]
    site: str = ""
    serial: str | None = None
    adb_server: str | None = Field(None, description="host:port of the adb server.")
    host: str | None = None
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    identity: str | None = None
    known_hosts: str | None = None
    root: str | None = Field(None, description="Folder of farm on the device.")
    labels: dict[Name, str] = Field({})
    expect: dict[str, str] = Field({})
    thermal: ThermalConfig = ThermalConfig()
    recover: tuple[Literal["reconnect", "reboot"] | CommandStep, ...] = ()
    sim: dict[str, str] = Field({})

    @model_validator(mode="after")
    def _complete(self) -> DeviceConfig:
        if self.transport == "adb" and not self.serial:
            raise ValueError("an adb device needs `serial` (see `adb devices`)")
        if self.transport == "ssh" and not self.host:
            raise ValueError("an ssh device needs `host`")
        for transport, keys in _KEYS.items():
            useless = self.model_fields_set.intersection(
                keys if transport != self.transport else ()
            )
            if useless:
                raise ValueError(f"{min(useless)}: {self.transport} has no use for it: remove it")
        if self.host is not None and _is_more(self.host):
            raise ValueError(
                "host: write a name or address alone: `user` and `port` have their own"
            )
        if self.adb_server is not None and not _SERVER.fullmatch(self.adb_server):
            raise ValueError("adb_server: write host:port, for example rack2:5037")
        if self.root is not None and not self.root.rstrip("/").startswith(("/", "~")):
            raise ValueError("root: write the whole path of a folder of farm's own")
        for key in self.expect:
            if key not in _FACTS:
                raise ValueError(f"expect.{key}: there is no such fact{meant(key, _FACTS)}")
        return self


def _is_more(host: str) -> bool:
    """Whether it isn't the name or address of a host alone."""
    port = re.fullmatch(r"\[.*\]:.*|[^:]*:[^:]*", host)
    return port is not None or re.fullmatch(r"[^\s@/]+", host) is None


class DefaultsConfig(Form):
    """Devices that need no entry."""

    adb: Literal["auto", "none"] = "auto"
    local: bool | Literal["auto"] = Field("auto", description="auto: where no device is named.")


class InventoryConfig(Form):
    """An inventory, as users write it."""

    devices: tuple[DeviceConfig, ...] = ()
    defaults: DefaultsConfig = DefaultsConfig()


def inventory_schema() -> dict[str, Any]:
    """JSON Schema of inventories."""
    return InventoryConfig.model_json_schema()

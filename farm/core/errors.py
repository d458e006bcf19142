"""The error tree. Every error a user can meet is one of these.

FarmError(message, **context)
├ ConfigError (file, key)      ├ UnknownName (known, install)
├ PlanError    ├ StoreError    ├ ExportError (stage, recipe)    ├ SiteLost
├ DeviceError (device)
│ ├ TransportError: ConnectError, DeviceLost, TransferError, TransportTimeout
│ ├ LeaseError └ DeviceUnfit (becomes a skipped cell)
└ RunnerError: RunnerCrashed (code, signal, stderr_tail), RunnerTimeout, BadOutput (raw)

Wrong tokens, a slow model, too few samples are never errors: they are verdicts.
"""

from __future__ import annotations

from typing import Any, ClassVar

#: Bytes of unexpected output that an error carries.
RAW_BYTES = 4096


class FarmError(Exception):
    """Root of the tree: a message for people and context for programs.

    The message is positional and the context optional, so that an error survives pickling
    across processes.
    """

    #: Whether the same work may succeed when it is tried again (elsewhere or later).
    retryable: ClassVar[bool] = False
    #: Exit code of the CLI when this error ends the command.
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.context: dict[str, Any] = context

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.context))

    @property
    def device(self) -> str | None:
        """Name of the device this error is about; None when it is about none."""
        value = self.context.get("device")
        return None if value is None else str(value)


def _rebuild(cls: type[FarmError], message: str, context: dict[str, Any]) -> FarmError:
    return cls(message, **context)


class ConfigError(FarmError):
    """A config, inventory or override is wrong. Context: file, key."""

    exit_code = 2


class UnknownName(ConfigError):
    """A model, recipe, runner, transport or device name nobody knows. Context: known, install."""


class PlanError(FarmError):
    """The plan can't be made, for example no device matches any request."""


class StoreError(FarmError):
    """The content store can't read or write: disk full, corrupted object, network file system."""


class ExportError(FarmError):
    """An export or a reference failed. Context: stage, recipe, model."""


class SiteLost(FarmError):
    """The agent of a site ended or was started anew; that says nothing against its devices."""

    retryable = True


class DeviceError(FarmError):
    """Something went wrong on or towards a device. Context: device."""


class TransportError(DeviceError):
    """The connection to a device failed; the work may succeed on another try."""

    retryable = True


class ConnectError(TransportError):
    """The device can't be reached or refuses us (unauthorized, offline, wrong host key)."""


class DeviceLost(TransportError):
    """The device was there and is gone."""


class TransferError(TransportError):
    """A push or pull broke or arrived damaged."""


class TransportTimeout(TransportError):
    """A deadline passed without an answer."""


class StorageFull(DeviceError):
    """The device has no space left for what must be written to it."""


class LeaseError(DeviceError):
    """Another owner holds the device, or our epoch is stale."""

    retryable = True


class DeviceUnfit(DeviceError):
    """The device can't run this cell (ABI, RAM, storage, backend): the cell becomes skipped."""


class RunnerError(FarmError):
    """The runner didn't do its work."""


class RunnerCrashed(RunnerError):
    """The runner ended with an error. Context: code, signal, stderr_tail."""


class RunnerTimeout(RunnerError):
    """The runner didn't end in time, or was ended by its supervisor."""


class BadOutput(RunnerError):
    """The runner printed something that isn't its protocol. Context: raw (bounded)."""


class Interrupted(FarmError):
    """The user interrupted the command."""

    exit_code = 130

"""The systemd user unit that keeps a deployed model loaded behind a Unix socket. Pure text."""

from __future__ import annotations

import json

from farm.core.deployment import Manifest


def unit_name(name: str) -> str:
    """Name of the unit of a deployment."""
    return f"farm-{name}.service"


def socket_path(root: str, name: str) -> str:
    """Where a deployment's service listens, under farm's folder on the device."""
    return f"{root}/run/{name}.sock"


def settings_path(root: str, name: str) -> str:
    """The request that a service starts with: threads and the like."""
    return f"{root}/run/{name}.json"


def settings(manifest: Manifest) -> bytes:
    """What that request says."""
    return json.dumps({"protocol": 1, "threads": manifest.threads}).encode() + b"\n"


def unit_text(manifest: Manifest, root: str) -> str:
    """Return the unit of a deployment, for the version that comes into use.

    Args:
        manifest: That version's.
        root: farm's folder on the device, absolute.
    """
    current = f"{root}/deployments/{manifest.name}/current"
    program, *rest = manifest.runner.argv
    words = [f"{current}/{program.removeprefix('./')}", *rest, "--model", manifest.program]
    for path in manifest.data:
        words += ["--data", path]
    words += ["--request", settings_path(root, manifest.name), "--out", f"{root}/run"]
    words += ["--serve", socket_path(root, manifest.name)]
    environment = "".join(
        f"Environment={_quoted(f'{key}={value}')}\n" for key, value in manifest.runner.env
    )
    return (
        "[Unit]\n"
        f"Description=farm: {manifest.name} behind a socket\n"
        "\n"
        "[Service]\n"
        f"WorkingDirectory={_path(current)}\n"
        f"{environment}"
        f"ExecStart={' '.join(map(_quoted, words))}\n"
        "UMask=0077\n"
        "Restart=on-failure\n"
        "RestartSec=2\n"
        "\n"
        "[Install]\n"
        "WantedBy=default.target\n"
    )


def _path(text: str) -> str:
    """A path of a unit, which quotes don't suit: specifiers only."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """A word of a unit: neither specifiers nor variables, and one word whatever it holds."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'

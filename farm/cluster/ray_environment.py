"""What Ray reads from the environment when it is imported. Its processes inherit it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

#: For every cluster: no statistics sent home, no workers restarted through `uv run`, and workers
#: at this process's priority. Ray's default is niceness 15, which runners would inherit: on a busy
#: host a worker then gets 3 % of a core, does not start for minutes, and its speeds are not ours.
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # How long a start waits for the head's port, which takes longer than Ray's 30 s on a busy host.
    "RAY_gcs_server_port_wait_time_s": "90",
    # Chunks of objects leave shared memory when they were written, not up to a second later.
    "RAY_free_objects_period_milliseconds": "50",
    # Where prometheus_client is installed, the head's monitor would serve figures on a port of its
    # own, which asks for no token. It logs that this number is none, and goes on without.
    "AUTOSCALER_METRIC_PORT": "-1",
}
#: Level of what Ray's native part writes to standard error.
QUIET = "RAY_BACKEND_LOG_LEVEL"
#: Of another cluster, of a job there that this command is part of, or of another way to its token.
_FOREIGN = (
    *("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_START_HOOK"),
    *("RAY_RUNTIME_ENV_HOOK", "RAY_JOB_CONFIG_JSON_ENV_VAR"),
)
#: What somebody may say about a cluster of our own; names with small letters tune Ray's parts.
_KEPT = ("RAY_TMPDIR", QUIET)


def set_local_environment() -> None:
    """Prepare this process for a cluster of its own, on the loopback address.

    An open port of Ray is code execution. Other users of this host need a token, which lives as
    long as the run.
    """
    for name in [*os.environ]:
        # Certificates, labels, resources and hooks are of somebody's other cluster.
        if name.startswith("RAY_") and name.isupper() and name not in _KEPT:
            del os.environ[name]
    # Clusters of several hosts are what this switch forbids; without it Ray replaces the
    # loopback address that we ask for by the external one, and listens on all interfaces.
    os.environ |= {
        **_ALWAYS,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_grpc_enable_http_proxy": "0",
    }


def set_joined_environment(token: Path) -> None:
    """Prepare this process for a cluster that is up, or for starting a node of one."""
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ |= {
        **_ALWAYS,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # Its native part writes warnings of its own to our standard error; errors come as such.
        QUIET: "fatal",
    }
    os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)

"""What Ray reads from the environment when it is imported. Its processes inherit it."""

from __future__ import annotations

import os
import secrets

#: For every cluster: no statistics sent home, no workers restarted through `uv run`, and workers
#: at this process's priority. Ray's default is niceness 15, which runners would inherit: on a busy
#: host a worker then gets 3 % of a core, does not start for minutes, and its speeds are not ours.
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Chunks of objects leave shared memory when they were written, not up to a second later.
    "RAY_free_objects_period_milliseconds": "50",
}


def set_environment(*, local: bool) -> None:
    """Prepare this process for `import ray`.

    An open port of Ray is code execution. A cluster of our own listens on the loopback address
    only, and other users of this host need a token that lives as long as the run. A cluster that
    is joined has a token of its own, from the user's environment or file.

    Args:
        local: The cluster is ours and ends with this process.
    """
    os.environ.update(_ALWAYS)
    if not local:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        return
    # Clusters of several hosts are what this switch forbids; without it Ray replaces the
    # loopback address that we ask for by the external one, and listens on all interfaces.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    os.environ.pop("RAY_ADDRESS", None)

"""Posts one JSON document to an address that a user gave."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from farm.core.errors import ConfigError, TransportError

TIMEOUT_S = 20.0


def check(url: str) -> None:
    """Refuse an address that nothing can be posted to.

    Raises:
        ConfigError: It is none; the address itself may be a secret and isn't repeated.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError("--webhook: the address can't be read") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("--webhook: write an address that begins with https:// or http://")


def post(url: str, document: Any) -> None:
    """Post a document.

    Raises:
        TransportError: Nobody took it; names the host, not the address, which may be a secret.
    """
    request = urllib.request.Request(
        url,
        json.dumps(document).encode(),
        {"Content-Type": "application/json", "User-Agent": "farm"},
    )
    host = urlsplit(url).hostname
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        raise TransportError(f"the webhook at {host} answered {error.code}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise TransportError(f"the webhook at {host} could not be reached: {why}") from None

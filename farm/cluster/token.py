"""The token of a cluster: a file that only its owner reads. Whoever has it runs code on every host.

Only the file's name goes into an environment, never what is in it.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from farm.core.errors import ConfigError, StoreError
from farm.paths import cluster_folder

#: Names a token's file, for every command that joins a cluster.
VARIABLE = "FARM_CLUSTER_TOKEN"
#: Too short to be random is no token.
_TOKEN = re.compile(r"[!-~]{32,}")


def token_file(home: Path) -> Path:
    """Where `farm cluster up` keeps it."""
    return cluster_folder(home) / "token"


def made_token(home: Path) -> Path:
    """Return the token's file, made with 256 random bits when there is none.

    An existing one is kept, so that hosts which have a copy may join again.

    Raises:
        ConfigError: There is one that others can read, or that is none.
        StoreError: It can't be written.
    """
    path = token_file(home)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return checked(path)
    except OSError as error:
        raise StoreError(f"{path}: the token can't be written: {error.strerror}") from error
    with os.fdopen(file, "w") as out:
        out.write(secrets.token_hex(32))
    return path


def find_token(option: Path | None, home: Path, environment: Mapping[str, str]) -> Path:
    """Return the file of the token to join with: the option's, the environment's, this host's own.

    Raises:
        ConfigError: There is none, or it isn't kept to its owner.
    """
    if option is not None:
        return checked(option)
    for variable in (VARIABLE, "RAY_AUTH_TOKEN_PATH"):
        if environment.get(variable):
            return checked(Path(environment[variable]))
    own, rays = token_file(home), Path("~/.ray/auth_token").expanduser()
    for path in (own, rays):
        if path.exists():
            return checked(path)
    raise ConfigError(
        f"a cluster lets nobody in without its token, and this host has none in {own}: copy the"
        f" file that `farm cluster up` named on the head, chmod 600, and give --token FILE (or"
        f" {VARIABLE}=FILE)"
    )


def checked(path: Path) -> Path:
    """Return the path of a token, absolute.

    Raises:
        ConfigError: It can't be read, others can read it, or it holds no token.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such token file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token can't be read: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"{path}: others on this host can read this token, and with it run code on every host"
            f" of the cluster: chmod 600 {path}"
        )
    if not _TOKEN.fullmatch(text):
        raise ConfigError(
            f"{path}: this is no token (32 characters or more, without blanks); `farm cluster up`"
            " makes one"
        )
    return path.resolve()

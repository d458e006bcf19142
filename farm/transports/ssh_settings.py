"""What ~/.ssh/config says of a host: asked of OpenSSH itself where its client is installed.

`ssh -G` knows every keyword, Include and Match. Without it paramiko reads the file, and what it
passes over is named.
"""

from __future__ import annotations

import getpass
import logging
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import paramiko

from farm.core.errors import ConfigError
from farm.transports.files import home_path

log = logging.getLogger(__name__)

#: `ssh -G` may run the commands of `Match exec`, seconds.
_ASK_S = 10.0
_SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
#: Settings with several values on a line, and those whose one value may hold blanks.
_LISTS = ("userknownhostsfile",)
#: What ssh says to an account that passwd doesn't know.
_NO_ACCOUNT = "No user exists for uid"
#: Keywords that paramiko passes over in silence.
_PASSED_OVER = re.compile(r"^\s*(Include)\b", re.IGNORECASE | re.MULTILINE)
#: Settings that farm passes over, though they decide whether a host is reached, or trusted.
_NOT_HONOURED = ("bindaddress", "bindinterface", "knownhostscommand", "revokedhostkeys")

Found = Mapping[str, Sequence[str]]


class Settings:
    """Settings of hosts, from one configuration.

    Args:
        config_file: OpenSSH client configuration; None is the user's own, and the system's.
    """

    def __init__(self, config_file: Path | None) -> None:
        self._file = config_file or home_path("~/.ssh/config")
        # OpenSSH takes the home folder of passwd, farm that of HOME.
        self._own = config_file is None and _passwd_home() == Path(os.environ.get("HOME", "/"))
        there = self._file is not None and self._file.is_file()
        self._program = shutil.which("ssh")
        self._said = there or (self._own and _SYSTEM_CONFIG.is_file() and bool(self._program))
        self._parsed: paramiko.SSHConfig | None = None

    def of(self, host: str, user: str | None, port: int | None) -> Found:
        """Settings of a host, by keyword in lower case; what is the default may be left out.

        Raises:
            ConfigError: The configuration can't be used.
        """
        if not self._said:
            return {}
        if self._program is not None:
            asked = self._asked(self._program, host, user, port)
            if asked is not None:
                return asked
        return self._looked_up(host) if self._file is not None and self._file.is_file() else {}

    def _asked(self, program: str, host: str, user: str | None, port: int | None) -> Found | None:
        """What `ssh -G` says; None when it doesn't know this account at all."""
        words = [program, "-T", "-G"]
        words += [] if self._own else ["-F", str(self._file)]
        words += ["-l", user] if user else []
        words += ["-p", str(port)] if port else []
        try:
            done = subprocess.run(
                [*words, "--", host],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_ASK_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"`ssh -G {host}`: {error}") from error
        said = done.stderr.decode("utf-8", "replace").strip().partition("\r\n")[0]
        if done.returncode and _NO_ACCOUNT in said:
            return None
        if done.returncode:
            raise ConfigError(
                f"~/.ssh/config, host {host}: {said or f'ssh exits with {done.returncode}'}"
            )
        found: dict[str, list[str]] = {}
        for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key, []).extend(value.split() if key in _LISTS else [value])
        for key in _NOT_HONOURED:
            if any(value.lower() != "none" for value in found.get(key, ())):
                log.warning("~/.ssh/config, host %s: farm doesn't honour %s", host, key)
        usual = [f"{_passwd_home()}/.ssh/known_hosts{number}" for number in ("", "2")]
        if found.get("userknownhostsfile") == usual:
            del found["userknownhostsfile"]
        return found

    def _looked_up(self, host: str) -> Found:
        try:
            found = self._read().lookup(host)
        except KeyError as error:
            # It fills in the name of our own account, whether or not that is asked for.
            raise ConfigError(
                f"~/.ssh/config, host {host}: set LOGNAME: this account has no name (no entry in"
                " passwd, and neither LOGNAME nor USER is set)"
            ) from error
        except (paramiko.ssh_exception.CouldNotCanonicalize, ImportError) as error:
            raise ConfigError(f"~/.ssh/config, host {host}: {error}") from error
        values: dict[str, list[str]] = {}
        for key, value in dict(found).items():
            texts = value if isinstance(value, list) else ["none" if value is None else value]
            values[key] = [w for t in texts for w in t.split()] if key in _LISTS else texts
        return values

    def _read(self) -> paramiko.SSHConfig:
        if self._parsed is None:
            path = self._file
            assert path is not None  # nothing is looked up without a file
            try:
                text = path.read_bytes().decode("utf-8", "replace")
                self._parsed = paramiko.SSHConfig.from_text(text)
            except (OSError, paramiko.ssh_exception.ConfigParseError) as error:
                raise ConfigError(f"{path}: {error}", file=str(path)) from error
            for word in sorted({match.capitalize() for match in _PASSED_OVER.findall(text)}):
                log.warning(
                    "%s: %s isn't honoured without OpenSSH's client: install `ssh`", path, word
                )
        return self._parsed


def _passwd_home() -> Path | None:
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def own_tokens() -> dict[str, str]:
    """Tokens of OpenSSH that speak of this account and this host."""
    host = socket.gethostname()
    tokens = {"%": "%", "l": host, "L": host.partition(".")[0], "i": str(os.getuid())}
    home = home_path("~")
    if home is not None:
        tokens["d"] = str(home)
    try:
        tokens["u"] = getpass.getuser()
    except (KeyError, OSError):
        log.debug("this account has no name")
    return tokens


def expand(text: str, tokens: Mapping[str, str], host: str, *, variables: bool = True) -> str:
    """Replace `%h` and `${NAME}` as OpenSSH does.

    Args:
        text: A value of the configuration.
        tokens: What stands for the letters after `%`.
        host: For errors.
        variables: Whether `${NAME}` is replaced; a command leaves that to its shell.

    Raises:
        ConfigError: It names what we don't have.
    """

    def token(match: re.Match[str]) -> str:
        if match[1] is not None:
            if match[1] not in tokens:
                raise ConfigError(
                    f"~/.ssh/config, host {host}: {match[0]} in {text!r} is not known"
                )
            return tokens[match[1]]
        if not variables:
            return match[0]
        if match[2] not in os.environ:
            raise ConfigError(f"~/.ssh/config, host {host}: {match[0]} in {text!r} is not set")
        return os.environ[match[2]]

    return re.sub(r"%(.)|\$\{(\w+)\}", token, text)

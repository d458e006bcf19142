"""Settings as commands: what is sent to a device, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from farm.core.command import Command, Completed
from farm.core.device import DeviceFacts
from farm.site.look.settings import ANDROID, Doze, Governor, SettingRefused, settings_of

CPU = "/sys/devices/system/cpu"


class Device:
    """Answers commands as told, and keeps them."""

    def __init__(self, answer: Callable[[tuple[str, ...]], tuple[int, str, str]]) -> None:
        self.answer = answer
        self.asked: list[tuple[tuple[str, ...], bytes]] = []

    def run(self, command: Command, on_stdout: object = None) -> Completed:
        self.asked.append((tuple(command.argv), command.stdin or b""))
        code, out, err = self.answer(tuple(command.argv))
        return Completed(code, out.encode(), err.encode(), 0.0)


def test_a_board_s_governors_are_found_by_their_files_and_nothing_else() -> None:
    files = {
        f"{CPU}/cpu10/cpufreq/scaling_governor": "schedutil\n",
        f"{CPU}/cpu2/cpufreq/scaling_governor": "schedutil\n",
        f"{CPU}/cpu0/cpufreq/../../../../../etc/cpufreq/scaling_governor": "x",
        "/etc/passwd/scaling_governor": "x",
    }
    facts = DeviceFacts(identity="m", abi="arm64-v8a", os="Debian GNU/Linux 12")
    found = settings_of(facts, json.dumps({"files": files}).encode())
    assert [setting.name for setting in found] == ["cpu2 governor", "cpu10 governor"]
    phone = DeviceFacts(identity="p", abi="arm64-v8a", os="Android 15", sdk=35)
    assert settings_of(phone, b"{}") is ANDROID


def test_a_governor_is_written_directly_else_with_sudo_else_it_says_how() -> None:
    governor = Governor(f"{CPU}/cpu0/cpufreq/scaling_governor")
    sudo = Device(lambda argv: (0, "", "") if argv[0] == "sudo" else (1, "", "Permission denied"))
    governor.write(sudo, "performance")  # type: ignore[arg-type]
    assert [argv[0] for argv, _ in sudo.asked] == ["tee", "sudo"]
    assert sudo.asked[0][1] == b"performance"
    never = Device(lambda argv: (1, "", "no"))
    with pytest.raises(SettingRefused, match=r"as root on it: echo performance \| tee /sys"):
        governor.write(never, "performance")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        (255, "", "\nException occurred while executing 'put':\njava.lang.SecurityException: no"),
        (0, "java.lang.SecurityException: Permission denial", ""),
        (127, "", "settings: not found"),
        (1, "", ""),
    ],
)
def test_refusals_of_android_are_noticed_whatever_the_exit_code(
    code: int, out: str, err: str
) -> None:
    device = Device(lambda argv: (code, out, err))
    with pytest.raises(SettingRefused, match="settings: "):
        ANDROID[0].write(device, "7")  # type: ignore[arg-type]


def test_a_setting_that_was_never_made_is_deleted_again() -> None:
    device = Device(lambda argv: (0, "", ""))
    ANDROID[0].write(device, "null")  # type: ignore[arg-type]
    assert device.asked[0][0] == ("settings", "delete", "global", "stay_on_while_plugged_in")


def test_doze_that_answers_something_else_is_not_guessed() -> None:
    garbage = Device(lambda argv: (0, "Can't find service: deviceidle\n", ""))
    with pytest.raises(SettingRefused, match="not 0 or 1"):
        Doze().read(garbage)  # type: ignore[arg-type]

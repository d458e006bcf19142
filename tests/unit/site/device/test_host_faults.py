from __future__ import annotations

from typing import cast

import pytest

from farm.core.errors import ConnectError, DeviceLost
from farm.core.lease import LeaseOwner
from farm.site.device import lease
from farm.site.device.helper import DeviceHelper
from farm.site.device.supervised import past_host_faults


def breaks(times: int, error: ConnectError | DeviceLost, calls: list[int]) -> int:
    calls.append(len(calls))
    if len(calls) <= times:
        raise error
    return len(calls)


def test_the_begin_of_a_job_outlives_its_hosts_faults_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("farm.site.device.supervised.time.sleep", lambda _s: None)
    ended = DeviceLost("the adb server ended meanwhile", host_fault="adb server")
    calls: list[int] = []
    assert past_host_faults(lambda: breaks(3, ended, calls)) == 4
    calls.clear()
    with pytest.raises(DeviceLost, match="meanwhile"):
        past_host_faults(lambda: breaks(99, ended, calls), times=2)
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(DeviceLost, match="unplugged"):
        past_host_faults(lambda: breaks(99, DeviceLost("unplugged"), calls))
    assert len(calls) == 1


def test_who_holds_a_device_reads_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # Bytes of a host's name that are no UTF-8: a device would send something else back.
    monkeypatch.setattr("farm.site.device.lease.socket.gethostname", lambda: "h\udce9")
    told = lease.user_and_host()
    assert told.encode().decode() == told


def test_a_lease_whose_release_broke_is_released_by_the_next_try() -> None:
    owner, calls = LeaseOwner("ann@desk", "run-1", 1), list[LeaseOwner]()

    class Helper:
        def take_lease(self, lease: LeaseOwner) -> None:
            """It is free."""

        def release_lease(self, lease: LeaseOwner) -> None:
            calls.append(lease)
            if len(calls) == 1:
                raise DeviceLost("the adb server ended meanwhile", host_fault="adb server")

    helper = cast(DeviceHelper, Helper())
    keeper = lease.LeaseKeeper(owner)
    keeper.take(helper)
    with pytest.raises(DeviceLost):
        keeper.release(helper)
    keeper.release(helper)
    keeper.release(helper)
    assert calls == [owner, owner]

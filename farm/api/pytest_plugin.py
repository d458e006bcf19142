"""The pytest plugin: devices of farm as fixtures, marks for what a test needs of them.

Loaded in every pytest session of an environment that has farm: it imports nothing heavy until a
test asks for a device. See docs/pytest.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from farm.api.devices import Deployed, FarmDevice
    from farm.api.lab import Lab

#: Mark of a test that needs a device, with its selector.
_MARK = "farm_needs"
_LAB = pytest.StashKey["Lab"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("farm", "devices of farm")
    group.addoption(
        "--farm-inventory",
        type=Path,
        metavar="FILE",
        default=os.environ.get("FARM_INVENTORY") or None,
        help="inventory of the devices; default: FARM_INVENTORY, else whatever is attached",
    )
    group.addoption(
        "--farm-select", default="", metavar="EXPR", help="only devices that match, for every test"
    )
    group.addoption(
        "--farm-require",
        action="store_true",
        help="fail, instead of skipping, tests without a device; also where CI=true",
    )
    group.addoption(
        "--farm-wait",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="longest wait for a device that somebody else has",
    )
    group.addoption(
        "--farm-out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="folder for the runs of tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers", f'{_MARK}(select): needs a device that matches, such as "transport=adb"'
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose marks no device fulfils."""
    for mark in item.iter_markers(_MARK):
        _require(item, *mark.args, **mark.kwargs)


@pytest.fixture
def farm_device(request: pytest.FixtureRequest) -> Iterator[Callable[..., FarmDevice]]:
    """Take a device: `farm_device(select="transport=adb")`. It is the test's until the test ends.

    Without a selector the test's mark says which.
    """
    item: pytest.Item = request.node
    with contextlib.ExitStack() as held:

        def take(select: str | None = None) -> FarmDevice:
            if select is None:
                select = _marked(item)
            lab = _require(item, select)
            return held.enter_context(lab.taken(select, item.name, _noting(item)))

        yield take


@pytest.fixture
def deployed(farm_device: Callable[..., FarmDevice]) -> Callable[..., Deployed]:
    """Bring a model to a device: `deployed("smollm2-135m", "xnnpack-8da4w")`.

    It takes a device by the test's mark, by `select`, or the `device` that the test has.
    """

    def bring(
        model: str,
        recipe: str = "",
        *,
        device: FarmDevice | None = None,
        select: str | None = None,
    ) -> Deployed:
        return (device or farm_device(select)).deployed(model, recipe)

    return bring


def _marked(item: pytest.Item) -> str:
    """What all marks of a test ask of its device, as one selector."""
    asked = [
        word for mark in item.iter_markers(_MARK) for word in (*mark.args, *mark.kwargs.values())
    ]
    return ", ".join(word for word in asked if word)


def _require(item: pytest.Item, select: str = "") -> Lab:
    """The session's devices, one of which matches; else the test ends here, and says why."""
    from farm.core.errors import FarmError

    try:
        lab = _lab(item.config)
        found = lab.find(select)
    except FarmError as error:  # a wrong inventory or selector: never a reason to skip
        pytest.fail(f"farm: {error}", pytrace=False)
    if not found.usable:
        if item.config.getoption("--farm-require") or os.environ.get("CI") == "true":
            pytest.fail(f"farm: {found.why}", pytrace=False)
        pytest.skip(f"farm: {found.why}")
    return lab


def _lab(config: pytest.Config) -> Lab:
    if _LAB not in config.stash:
        from farm.api.devices import Place
        from farm.api.lab import Lab
        from farm.paths import farm_home

        option = config.getoption
        place = Place(farm_home(), option("--farm-inventory"), option("--farm-out"))
        config.stash[_LAB] = Lab(place, option("--farm-select"), option("--farm-wait"))
    return config.stash[_LAB]


def _noting(item: pytest.Item) -> Callable[[str, str], None]:
    def note(name: str, text: str) -> None:
        item.add_report_section("call", f"farm {name}", text)
        # JUnit has no such sections, but properties; of a run its folder, which has the rest.
        kept = text.split("\n")[0] if name == "run" else text
        item.user_properties.append((f"farm.{name}", kept))

    return note

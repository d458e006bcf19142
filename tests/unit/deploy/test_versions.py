"""What a device has of a deployment, which versions go, and what names a version."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from farm.core.deployment import (
    MANIFEST,
    Installed,
    InstalledFile,
    Manifest,
    current_of,
    superfluous,
)
from farm.core.runner import DeployFile
from farm.deploy.release import version_of
from tests.unit.deploy.builders import manifest, ref


def installed(one: Manifest, **changes: int | None) -> Installed:
    files = [InstalledFile(f.path, f.object.sha256, f.object.size_bytes) for f in one.files]
    files.append(InstalledFile(MANIFEST, "0" * 64, 9))
    return Installed(
        one.name,
        one.version,
        True,
        tuple(replace(f, size_bytes=changes.get(f.path, f.size_bytes)) for f in files),
    )


def test_a_version_holds_its_files_or_it_does_not() -> None:
    one = manifest()
    assert installed(one).holds(one.files)
    more = (*one.files, DeployFile(ref("more"), "more"))
    assert not installed(one).holds(more)
    assert not installed(replace(one, files=more)).holds(one.files)
    lost = installed(one, **{"model.pte": None})
    assert not lost.holds(one.files)
    assert lost.missing == ("model.pte",)
    bare = replace(installed(one), files=installed(one).files[:-1])
    assert not bare.holds(one.files), "without its manifest nobody knows what it is"


def test_the_same_again_is_the_same_version_whoever_deploys_it_when() -> None:
    one = manifest()
    later = replace(one.provenance, deployed_at="2027", deployed_by="bob@rack")
    assert version_of(one) == version_of(replace(one, provenance=later))
    others = [
        replace(one, threads=1),
        replace(one, provenance=replace(one.provenance, run_id="other")),
        replace(one, provenance=replace(one.provenance, unverified="failed")),
        replace(one, files=one.files[:1]),
        replace(one, chat=replace(one.chat, stop_ids=(3,))),
    ]
    assert len({version_of(other) for other in [one, *others]}) == 6


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=8, unique=True),
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 7), st.integers(0, 7),
)  # fmt: skip
def test_what_is_in_use_and_the_way_back_never_go(
    times: list[int], keep: int, foreign: int, current: int, also: int
) -> None:
    have = tuple(Installed("kiosk", f"v{at}", n == current, (), at) for n, at in enumerate(times))
    have += tuple(Installed("other", f"o{n}", False, (), n) for n in range(foreign))
    back = f"v{times[also % len(times)]}"
    gone = superfluous(have, "kiosk", keep, back)
    assert current_of(have, "kiosk") not in gone
    assert back not in gone
    assert all(version.startswith("v") for version in gone)
    stay = [one for one in have if one.name == "kiosk" and one.version not in gone]
    assert len(stay) >= min(len(times), max(keep, 1))
    assert len(stay) <= max(keep, 2, 1)
    newest_gone = max((one.installed_unix for one in have if one.version in gone), default=-1)
    free = [one for one in stay if not one.current and one.version != back]
    assert all(one.installed_unix > newest_gone for one in free)

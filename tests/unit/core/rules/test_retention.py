from __future__ import annotations

from farm.core.rules.retention import EntryKind, Policy, StoreEntry, StoreObject, choose

DAY_S = 86400.0
NOW_S = 100 * DAY_S


def entry(
    name: str,
    *objects: str,
    age_d: float = 1,
    kind: EntryKind = "artifact",
    baselines: tuple[str, ...] = (),
    used_by: tuple[str, ...] = (),
) -> StoreEntry:
    return StoreEntry(
        key=name,
        kind=kind,
        objects=tuple((sha, sha) for sha in objects),
        size_bytes=100 * len(objects),
        last_used_s=NOW_S - age_d * DAY_S,
        baselines=baselines,
        used_by=used_by,
    )


def things(names: str, *, protected: str = "") -> list[StoreObject]:
    return [StoreObject(name, 100, NOW_S, name in protected) for name in names]


def removed(entries: list[StoreEntry], objects: list[StoreObject], **policy: float) -> str:
    """Names of the entries and objects that go, `old|ab`."""
    found = choose(entries, objects, Policy(**policy), NOW_S)  # type: ignore[arg-type]
    assert found.freed_bytes == 100 * len(found.objects)
    names = " ".join(item.key for item in found.entries)
    return f"{names}|{''.join(item.sha256 for item in found.objects)}"


def test_without_a_policy_only_what_nothing_names_goes() -> None:
    entries = [entry("old", "a", age_d=999), entry("broken", kind="unreadable")]
    assert removed(entries, things("abc", protected="c")) == "broken|b"


def test_age_counts_from_the_last_use() -> None:
    entries = [entry("old", "a", age_d=31), entry("new", "b", age_d=29)]
    assert removed(entries, things("ab"), older_than_s=30 * DAY_S) == "old|a"


def test_of_each_kind_the_last_used_stay() -> None:
    entries = [entry(f"e{age}", str(age), age_d=age) for age in (3, 1, 2)]
    entries.append(entry("r9", "r", age_d=9, kind="reference"))
    assert removed(entries, things("123r"), keep_last=1) == "e3 e2|23"
    assert removed(entries, things("123r"), keep_last=0) == "e3 e1 e2 r9|123r"


def test_least_recently_used_go_until_it_fits() -> None:
    entries = [entry(f"e{age}", str(age), age_d=age) for age in (3, 1, 2)]
    # What nothing names goes anyway and doesn't count.
    assert removed(entries, things("123x"), max_bytes=300) == "|x"
    assert removed(entries, things("123x"), max_bytes=299) == "e3|3x"
    assert removed(entries, things("123x"), max_bytes=0) == "e3 e1 e2|123x"


def test_object_of_two_entries_goes_with_the_second() -> None:
    entries = [entry("a", "w", "1", age_d=5), entry("b", "w", "2", age_d=1)]
    assert removed(entries, things("w12"), older_than_s=2 * DAY_S) == "a|1"
    assert removed(entries, things("w12"), max_bytes=200) == "a|1"
    assert removed(entries, things("w12"), max_bytes=100) == "a b|w12"


def test_what_a_baseline_names_or_a_process_uses_never_goes() -> None:
    entries = [
        entry("named", "a", age_d=999, baselines=("nightly",)),
        entry("used", "b", age_d=999, used_by=("pid 1",)),
        entry("broken", age_d=999, kind="unreadable", used_by=("pid 1",)),
        entry("free", "c", age_d=999),
    ]
    for policy in ({"older_than_s": 0.0}, {"keep_last": 0}, {"max_bytes": 0}):
        assert removed(entries, things("abcd", protected="d"), **policy) == "free|c"

from __future__ import annotations

import pytest

from farm.core.errors import ConfigError, UnknownName
from farm.registry import Registry


def test_a_thing_is_imported_at_first_use() -> None:
    table: Registry[object] = Registry("codec", {"json": "json:dumps"})
    assert table.get("json")({"a": 1}) == '{"a": 1}'  # type: ignore[operator]


def test_a_thing_may_be_given_itself() -> None:
    table: Registry[int] = Registry("number", {"one": 1})
    assert table.get("one") == 1
    assert "one" in table
    assert list(table) == ["one"]
    assert len(table) == 1


def test_an_unknown_name_lists_what_exists_and_the_nearest() -> None:
    table: Registry[int] = Registry("transport", {"adb": 1, "ssh": 2})
    with pytest.raises(UnknownName, match=r"unknown transport 'sssh'; did you mean ssh\?") as got:
        table.get("sssh")
    assert got.value.context["known"] == ("adb", "ssh")
    with pytest.raises(UnknownName, match="known: adb, ssh"):
        table.get("carrier-pigeon")


def test_a_missing_package_is_named_with_its_remedy() -> None:
    table: Registry[int] = Registry(
        "report", {"pdf": "no_such_package_here.sub:make"}, install={"pdf": "pip install pdfs"}
    )
    with pytest.raises(UnknownName, match=r"needs the package .no_such_package_here.*pip install"):
        table.get("pdf")


def test_a_defect_in_our_own_tree_stays_visible() -> None:
    table: Registry[int] = Registry("report", {"x": "farm.no_such_module:make"})
    with pytest.raises(ModuleNotFoundError):
        table.get("x")


def test_a_missing_attribute_is_named() -> None:
    table: Registry[int] = Registry("report", {"x": "json:no_such_function"})
    with pytest.raises(ConfigError, match="json has no 'no_such_function'"):
        table.get("x")


@pytest.mark.parametrize("path", ["json", "json.dumps", "json:", ":dumps", "a b:c"])
def test_a_text_that_is_no_import_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="not an import path"):
        Registry("report", {"x": path})


def test_a_name_is_registered_once() -> None:
    table: Registry[int] = Registry("report", {"x": 1})
    with pytest.raises(ConfigError, match="registered twice"):
        table.add("x", 2)

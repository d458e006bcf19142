from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from farm.core.errors import ConfigError, StoreError
from farm.paths import store_root
from farm.store import run_bundle
from farm.store.objects import ContentStore

DATA = b"what a device runs"
SHA = hashlib.sha256(DATA).hexdigest()


def bundle(path: Path, files: dict[str, bytes] | None = None) -> Path:
    given = {"report.json": b"{}", "objects/" + SHA: DATA} if files is None else files
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in given.items():
            archive.writestr(name, content)
    run_bundle.seal(path)
    return path


def test_a_bundle_is_unpacked_once_and_its_objects_are_in_the_store(tmp_path: Path) -> None:
    path = bundle(tmp_path / "r.farm.zip")
    folder = run_bundle.unpacked(path, tmp_path / "home")
    assert (folder / "report.json").read_bytes() == b"{}"
    assert not (folder / "objects").exists()
    store = ContentStore(store_root(tmp_path / "home"))
    assert store.path(SHA).read_bytes() == DATA
    store.remove(SHA)
    assert run_bundle.unpacked(path, tmp_path / "home") == folder
    assert store.has(SHA), "what gc removed is brought again"
    (folder / "report.json").write_text('{"outcome": "passed"}')
    with pytest.raises(ConfigError, match=r"report\.json: was changed since it was unpacked"):
        run_bundle.unpacked(path, tmp_path / "home")


def test_any_program_opens_it(tmp_path: Path) -> None:
    path = bundle(tmp_path / "r.farm.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("report.json") == b"{}"


def test_a_flipped_byte_anywhere_is_refused(tmp_path: Path) -> None:
    good = bundle(tmp_path / "good.farm.zip").read_bytes()
    bad = tmp_path / "bad.farm.zip"
    for place in range(len(good)):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ConfigError, match=r"bad\.farm\.zip: (was changed|is no whole bundle)"):
            run_bundle.unpacked(bad, tmp_path / "home")
    assert not (tmp_path / "home" / "bundles").exists()


@pytest.mark.parametrize("keep", [0, 10, 100, -1])
def test_a_cut_bundle_is_refused(tmp_path: Path, keep: int) -> None:
    path = bundle(tmp_path / "r.farm.zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match="no whole bundle of farm"):
        run_bundle.unpacked(path, tmp_path / "home")


def test_a_zip_that_nobody_sealed_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "r.farm.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("report.json", "{}")
    with pytest.raises(ConfigError, match="no whole bundle of farm"):
        run_bundle.unpacked(path, tmp_path / "home")


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\..\\out", "folder/"])
def test_nothing_is_written_outside_its_folder(tmp_path: Path, name: str) -> None:
    path = bundle(tmp_path / "r.farm.zip", {name: b"x"})
    with pytest.raises(ConfigError, match="no plain file of a bundle"):
        run_bundle.unpacked(path, tmp_path / "home")


def test_a_link_is_no_file_of_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "r.farm.zip"
    link = zipfile.ZipInfo("report.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    run_bundle.seal(path)
    with pytest.raises(ConfigError, match="no plain file of a bundle"):
        run_bundle.unpacked(path, tmp_path / "home")


def test_an_object_that_isnt_what_it_is_called_is_refused(tmp_path: Path) -> None:
    path = bundle(tmp_path / "r.farm.zip", {"objects/" + "0" * 64: DATA})
    with pytest.raises(StoreError):
        run_bundle.unpacked(path, tmp_path / "home")


def test_a_bundle_without_a_config_cant_be_run_again(tmp_path: Path) -> None:
    path = bundle(tmp_path / "r.farm.zip")
    with pytest.raises(ConfigError, match="can't be run again"):
        run_bundle.config_of(path, tmp_path / "home")
    path = bundle(tmp_path / "c.farm.zip", {"config.yaml": b"name: x"})
    assert run_bundle.config_of(path, tmp_path / "home").read_bytes() == b"name: x"

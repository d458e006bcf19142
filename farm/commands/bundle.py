"""`farm bundle`: a run as one file that others open, compare, run again and deploy.

It holds no address, account or key of a device, and no value of a variable that a runner was given.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from farm import codec, paths
from farm.clock import utc_now
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError, StoreError
from farm.core.plan import Plan
from farm.core.printable import MASK, shown_value
from farm.core.result import CellResult, Report
from farm.core.runner import OWN_KINDS, RunnerSpec
from farm.core.version import VERSION
from farm.deploy.made import Made, made_of
from farm.deploy.release import Validated, kept_build, open_run
from farm.reports import records, renderers
from farm.run import run_folder
from farm.run.ending import REPORT_FILES
from farm.run.journal import Journal
from farm.run.opening import EPOCH, FARM, HOST, PLAN, REPORTED, RUN_ID, STARTED
from farm.run.saved_plan import SavedPlan
from farm.store import run_bundle
from farm.store.objects import ContentStore

#: Version of what a bundle holds.
FORMAT = 1
SUMS, PROVENANCE, READ_ME = "SHA256SUMS", "provenance.json", "README.txt"
#: Said of a report that isn't byte for byte the run's own.
_HIDDEN = "report.json: hosts, accounts and keys of devices, in why they could not be used"

_READ_ME = """\
Run {run_id} of farm {version}: {verdict}

report.html          the report, for a browser
report.json          the same, for programs; its schema: `farm schema`
samples.csv          every sample that was timed; cells.csv, metrics.csv, stages.csv
provenance.json      which farm, toolchains, artifacts, runners and devices
{config}SHA256SUMS           `sha256sum -c SHA256SUMS` checks what was unpacked

With farm, FILE being this bundle (farm checks every byte of it first):
  farm report FILE --format table      look at it
  farm compare FILE latest             hold a run of your own against it
  farm run FILE --inventory lab.yaml   run its config on your devices
  farm deploy FILE --to SELECTOR       ship what passed, where it holds artifacts
"""


@dataclass(frozen=True, slots=True)
class Bundled:
    """What was written."""

    path: str
    size_bytes: int
    #: Of all bytes before the digest that the file ends with.
    sha256: str
    #: Cells whose artifact and runner are in it.
    shipped: tuple[str, ...]
    #: What isn't in it, and why.
    left_out: tuple[str, ...]


def write(folder: Path, to: Path | None, home: Path, *, with_artifacts: bool = False) -> Bundled:
    """Write the bundle of a run.

    Args:
        folder: The run.
        to: The file; None: named after the run, in the working directory.
        home: FARM_HOME, whose store has the artifacts.
        with_artifacts: Also what passed, so that it can be deployed from the bundle.

    Raises:
        ConfigError: The name doesn't end as a bundle's does, or the run has no journal.
        StoreError: It can't be written, or no artifact of a cell that passed is there any more.
    """
    run_bundle.refuse(folder)
    run, hidden = _without_ways(open_run(folder, home))
    path = to or Path(f"{run.report.run_id}{run_bundle.SUFFIX}")
    if not path.name.endswith(run_bundle.SUFFIX):
        raise ConfigError(f"--to {path}: a bundle's name ends with {run_bundle.SUFFIX}")
    store = ContentStore(paths.store_root(home))
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with store.in_use(f"farm bundle {run.report.run_id}"):
            made, left_out = _made(run, home) if with_artifacts else ({}, [])
            left_out += hidden
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
                _fill(archive, run, made, left_out, home)
        digest = run_bundle.seal(part)
        part.replace(path)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return Bundled(str(path), path.stat().st_size, digest, tuple(made), tuple(left_out))


def _made(run: Validated, home: Path) -> tuple[dict[str, Made], list[str]]:
    """What passed, by cell, and why the rest isn't shipped."""
    found: dict[str, Made] = {}
    left_out = []
    for result in run.report.results:
        if result.outcome != "passed":
            left_out.append(f"{result.cell_id}: {result.outcome}, nobody deploys it")
        elif run.runner_of(result.cell_id).kind not in OWN_KINDS:
            left_out.append(f"{result.cell_id}: its runner isn't farm's to deploy")
        else:
            try:
                made = made_of(run.folder, run.saved, result, home, partial(kept_build, home))
            except StoreError as error:
                left_out.append(error.message)
                continue
            # A build has the values of its runner, and would need them on every device.
            if any(shown_value(key, value) != value for key, value in made.build.env):
                left_out.append(
                    f"{result.cell_id}: its runner was given variables,"
                    " which aren't given to others"
                )
            else:
                found[result.cell_id] = made
    if not found:
        raise StoreError(f"--with-artifacts: nothing can be shipped: {'; '.join(left_out)}")
    return found, left_out


def _fill(
    archive: zipfile.ZipFile,
    run: Validated,
    made: Mapping[str, Made],
    left_out: list[str],
    home: Path,
) -> None:
    files = dict(_texts(run, left_out))
    if made:
        files[run_bundle.SHIPPED] = _json({name: codec.to_data(one) for name, one in made.items()})
    files[run_bundle.MANIFEST] = _json(
        {
            "farm_bundle": FORMAT,
            "run_id": run.report.run_id,
            "made_at": utc_now(),
            "farm_version": VERSION,
            "shipped": list(made),
            "left_out": left_out,
        }
    )
    files[run_folder.JOURNAL] = _journal(run, home)
    sums = [(hashlib.sha256(content).hexdigest(), name) for name, content in files.items()]
    for name, content in files.items():
        archive.writestr(name, content)
    store = ContentStore(paths.store_root(home))
    for ref in {ref.sha256: ref for one in made.values() for ref in one.objects}.values():
        name = f"{run_bundle.OBJECTS}/{ref.sha256}"
        archive.write(store.path(ref), name)
        sums.append((ref.sha256, name))
    archive.writestr(SUMS, "".join(f"{digest}  {name}\n" for digest, name in sums))


def _texts(run: Validated, left_out: list[str]) -> Iterator[tuple[str, bytes]]:
    """Everything that people read."""
    report = run.report
    for name, file in REPORT_FILES.items():
        written = run.folder / file
        # Byte for byte as the run left it: its hash is what deployments name.
        if file == run_folder.REPORT and written.exists() and _HIDDEN not in left_out:
            yield file, written.read_bytes()
        else:
            yield file, renderers.render(report, name).encode()
    for name in ("cells", "metrics", "samples", "stages"):
        table: records.Table = getattr(records, name.upper())
        yield f"{name}.csv", table.as_csv(report).encode()
    yield PROVENANCE, _json(_provenance(run))
    config = ""
    if masked := _masked(run.saved):
        left_out.append(f"config.yaml: variables of {', '.join(masked)} aren't given to others")
    else:
        config = "config.yaml          what was run, overrides included\n"
        text = yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True)
        yield run_bundle.CONFIG, text.encode()
    words = {"run_id": report.run_id, "version": report.farm.version, "config": config}
    yield READ_ME, _READ_ME.format(verdict=report.verdict_line, **words).encode()


def _provenance(run: Validated) -> dict[str, Any]:
    report = run.report
    return {
        "run_id": report.run_id,
        "started_at": report.started_at,
        "ended_at": report.ended_at,
        "report_sha256": run.report_sha256,
        "config_sha256": report.config_sha256,
        "farm": codec.to_data(report.farm),
        "host": report.host,
        "toolchains": {name: codec.to_data(one) for name, one in report.toolchains.items()},
        "cells": [_origin(result) for result in report.results],
    }


def _origin(result: CellResult) -> dict[str, Any]:
    parts = ("model", "recipe", "toolchain", "outcome")
    return {
        "cell_id": result.cell_id,
        **{name: getattr(result, name) for name in parts},
        "artifact": codec.to_data(result.artifact),
        "runner": codec.to_data(result.runner),
        "device": codec.to_data(result.device),
    }


def _journal(run: Validated, home: Path) -> bytes:
    """A journal with the plan alone: what a deployment asks about the run."""
    report = run.report
    with ContentStore(paths.store_root(home)).scratch() as scratch:
        path = scratch / run_folder.JOURNAL
        journal = Journal(path)
        try:
            for key, value in (
                (RUN_ID, report.run_id),
                (STARTED, report.started_at),
                (EPOCH, "1"),
                (REPORTED, "1"),
                (HOST, codec.to_json(report.host)),
                (FARM, codec.to_json(report.farm)),
                (PLAN, codec.to_json(_bare(run.saved, _ways(run.saved)))),
            ):
                journal.set(key, value)
        finally:
            journal.close()
        return path.read_bytes()


def _without_ways(run: Validated) -> tuple[Validated, list[str]]:
    """A run whose report doesn't tell how devices are reached, and what is said about that.

    Why a device could not be used names its host, account and keys.
    """
    data = codec.to_data(run.report)
    clean = _hide({**data, "config": None}, _ways(run.saved))
    report = codec.from_data(Report, {**clean, "config": data["config"]})
    return replace(run, report=report), [_HIDDEN] if report != run.report else []


def _ways(saved: SavedPlan) -> re.Pattern[str]:
    """Finds hosts, accounts and keys that devices are reached by; never a part of a cell's id."""
    plan = saved.plan
    cells = (*plan.cells, *(skip.cell for skip in plan.skips))
    public = {part for cell in cells for part in re.split("[/:]", cell.cell_id)}
    public |= {device.name for device in plan.devices}
    found: set[str] = set()
    for device in plan.devices:
        entry, reason = device.entry, device.reason
        found |= {entry.host or "", entry.identity or "", entry.known_hosts or ""}
        found |= {entry.adb_server or "", f"{entry.user}@{entry.host}" if entry.user else ""}
        if entry.transport == "ssh":  # ~/.ssh/config may have said the rest
            accounts = re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*", reason)
            found |= {*accounts, *(account.partition("@")[2] for account in accounts)}
            found |= set(re.findall(r"(?:~|(?<![\w/~]))(?:/[\w.+-]*[\w+-])+", reason))
    words = sorted((re.escape(word) for word in found - public if word), key=len, reverse=True)
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(words)})(?![\w-])" if words else r"(?!)")


def _hide(data: Any, ways: re.Pattern[str]) -> Any:
    """Plain data with a mask in place of each way to a device."""
    if isinstance(data, dict):
        return {key: _hide(value, ways) for key, value in data.items()}
    if isinstance(data, list):
        return [_hide(value, ways) for value in data]
    return ways.sub(MASK, data) if isinstance(data, str) else data


def _bare(saved: SavedPlan, ways: re.Pattern[str]) -> SavedPlan:
    """A plan without what only its lab may know."""
    plan = codec.from_data(Plan, _hide(codec.to_data(saved.plan), ways))
    runners = {name: _without_values(runner) for name, runner in saved.runners.items()}
    devices = tuple(_unreachable(device) for device in plan.devices)
    return replace(
        saved,
        spec=replace(saved.spec, runners=tuple(_without_values(r) for r in saved.spec.runners)),
        runners=runners,
        plan=replace(plan, devices=devices),
        asked={**saved.asked, "inventory": ""},
    )


def _without_values(runner: RunnerSpec) -> RunnerSpec:
    env = tuple((key, shown_value(key, value)) for key, value in runner.env)
    return replace(runner, env=env)


def _unreachable(device: Device) -> Device:
    entry = device.entry
    return replace(device, entry=DeviceEntry(entry.name, entry.transport, labels=entry.labels))


def _masked(saved: SavedPlan) -> list[str]:
    """Runners that were given variables whose values aren't farm's own choices."""
    return [name for name, one in saved.runners.items() if _without_values(one) != one]


def _json(data: Any) -> bytes:
    return run_folder.json_text(data).encode()

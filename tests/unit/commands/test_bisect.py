"""A search as the command makes it: runs, journal, and what ends or interrupts it."""

from __future__ import annotations

import math
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from farm.commands import bisect, revisions
from farm.commands.bisect import Found, Question
from farm.commands.revisions import Checkout
from farm.core.errors import ConfigError, ExportError, FarmError, StoreError
from farm.core.result import CellResult, Outcome, SampleReport
from farm.planning.planning import RunOptions
from farm.run.run import Finished
from farm.run.run_lock import RunLock
from tests.unit.reports.builders import report, results

RECIPES = (
    "xnnpack-8da4w", "xnnpack-8da4w-g64", "xnnpack-8da4w-ctx2048", "xnnpack-8da4w-emb4",
    "xnnpack-8da4w-kv8", "xnnpack-8da4w-ptd", "xnnpack-4w", "xnnpack-int8",
)  # fmt: skip


class Device:
    """Runs configs in memory: from revision `first_bad` on the decode rate is 15 % less."""

    def __init__(self, folder: Path, first_bad: int) -> None:
        self.folder, self.first_bad = folder, first_bad
        self.ran: list[str] = []
        self.draw = random.Random(7)
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str, CellResult], CellResult] = lambda name, cell: cell
        self.exit_code = 0
        self.scatter = 0.04

    def __call__(self, options: RunOptions) -> Finished:
        recipe = _recipe(options)
        self.before(recipe)
        self.ran.append(recipe)
        cell = self.after(recipe, self.cell(recipe, paired=options.baseline is not None))
        folder = self.folder / str(len(self.ran))
        made = replace(report((cell,)), run_id=f"r{len(self.ran)}", exit_code=self.exit_code)
        return Finished(made, folder)

    def cell(self, recipe: str, *, paired: bool) -> CellResult:
        first = results()[0]
        bad = RECIPES.index(recipe) >= self.first_bad
        rate = 80 * (0.85 if bad else 1.0)

        def samples(rate: float, arm: str) -> list[SampleReport]:
            values = [rate * math.exp(self.draw.gauss(0, self.scatter)) for _ in range(8)]
            return [SampleReport(v, 1.0 * n, n, 0, arm) for n, v in enumerate(values)]  # type: ignore[arg-type]

        both = [*samples(rate, "candidate"), *(samples(80, "baseline") if paired else ())]
        rows = tuple(
            replace(row, samples=tuple(both), trust="noisy")
            for row in first.performance
            if (row.metric, row.regime) == ("tg32", "warm")
        )
        cell_id = first.cell_id.replace(first.recipe, recipe)
        return replace(first, recipe=recipe, cell_id=cell_id, performance=rows)


def _recipe(options: RunOptions) -> str:
    word = next(word for word in options.overrides if word.startswith("matrix.recipe="))
    (recipe,) = yaml.safe_load(word.partition("=")[2])
    assert "gates={regress: 99.9999%}" in options.overrides
    assert options.one_look == (options.baseline is not None), "no second sittings of the run's own"
    return str(recipe)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: t\nmodels: [tiny-llama]\nworkload: {prefill: [64], decode: [32], depth: [0]}\n"
    )
    return path


def question(config: Path, **changes: object) -> Question:
    asked = Question(str(config), "recipe", RECIPES, "tg32", 0.15)
    return replace(asked, **changes)  # type: ignore[arg-type]


def go(folder: Path, device: Device) -> Found:
    return bisect.go_on(folder, device, lambda _line: None)


def test_the_seeded_revision_is_found_in_four_builds(config: Path, tmp_path: Path) -> None:
    for first_bad in (1, 5, 7):
        device = Device(tmp_path, first_bad)
        found = go(bisect.begin(question(config), tmp_path, tmp_path), device)
        assert found.verdict.first_bad == (first_bad,)
        assert len(set(device.ran)) <= 4
        assert found.exit_code == 0
        assert f"came in with {RECIPES[first_bad]} ({RECIPES[first_bad - 1]} is good)" in (
            found.sentence
        )
        rows = bisect.lines(found)
        assert rows[first_bad][3] == "bad"
        assert rows[first_bad][2].startswith("0.8")
        assert sum(row[3] == "not needed" for row in rows) == 8 - len(set(device.ran))


def test_no_loss_is_told_and_is_not_success(config: Path, tmp_path: Path) -> None:
    found = go(bisect.begin(question(config), tmp_path, tmp_path), Device(tmp_path, 8))
    assert (found.verdict.first_bad, found.exit_code) == ((), 3)
    assert "as good as the first" in found.sentence
    assert bisect.to_data(found)["maybe_none"] is True


def test_a_search_that_was_killed_goes_on_and_measures_nothing_twice(
    config: Path, tmp_path: Path
) -> None:
    folder = bisect.begin(question(config), tmp_path, tmp_path)
    device = Device(tmp_path, 6)

    def killed(_name: str) -> None:
        if len(device.ran) == 3:
            device.before = lambda _name: None
            raise KeyboardInterrupt

    device.before = killed
    with pytest.raises(KeyboardInterrupt):
        go(folder, device)
    assert len(bisect.open_search(folder).seen) == 2
    device.exit_code = 130  # Ctrl-C while a run goes on: it has its results, and is no sitting
    with pytest.raises(KeyboardInterrupt):
        go(folder, device)
    device.exit_code = 0
    assert len(bisect.open_search(folder).seen) == 2
    assert go(folder, device).verdict.first_bad == (6,)
    journal = bisect.open_search(folder)
    assert device.ran.count(RECIPES[0]) == 1, "the good revision is measured once"
    assert len(journal.runs) == len(device.ran) - 1 == 1 + len(journal.seen)


def test_two_processes_never_work_on_one_search(config: Path, tmp_path: Path) -> None:
    folder = bisect.begin(question(config), tmp_path, tmp_path)
    lock = RunLock(folder)
    with pytest.raises(StoreError, match="in the hands of process"):
        bisect.search(folder, tmp_path, lambda _event: None, lambda _line: None)
    lock.release()


def test_what_cannot_be_exported_leaves_a_range_and_a_lost_device_ends_the_search(
    config: Path, tmp_path: Path
) -> None:
    device = Device(tmp_path, 4)

    def broken(name: str, cell: CellResult) -> CellResult:
        if name != RECIPES[4]:
            return cell
        return _gone(cell, "errored", "no such operator", "export_failed")

    device.after = broken
    found = go(bisect.begin(question(config), tmp_path, tmp_path), device)
    assert found.verdict.first_bad == (4, 5)
    assert f"{RECIPES[4]}, {RECIPES[5]}: those between can't be told" in found.sentence
    assert bisect.lines(found)[4][3] == "no such operator"

    folder = bisect.begin(question(config), tmp_path, tmp_path)
    device.after = lambda name, cell: (
        cell if name == RECIPES[0] else _gone(cell, "errored", "the cable", "device_failed")
    )
    with pytest.raises(FarmError, match=f"the cable; go on with `farm bisect --resume {folder}`"):
        go(folder, device)
    device.after = lambda _name, cell: cell
    assert go(folder, device).verdict.first_bad == (4,)


def test_numbers_that_cannot_be_trusted_are_tried_again_and_then_told(
    config: Path, tmp_path: Path
) -> None:
    device = Device(tmp_path, 8)

    def invalid(name: str, cell: CellResult) -> CellResult:
        if name == RECIPES[0]:
            return cell
        return replace(
            cell, performance=tuple(replace(p, trust="invalid") for p in cell.performance)
        )

    device.after = invalid
    found = go(bisect.begin(question(config), tmp_path, tmp_path), device)
    assert found.exit_code == 3
    assert "can't tell" in found.sentence
    assert device.ran.count(RECIPES[4]) == 3


def test_a_wasted_sitting_is_no_reason_to_give_up_what_others_told(
    config: Path, tmp_path: Path
) -> None:
    device = Device(tmp_path, 4)
    device.scatter = 0.12

    def every_third(_name: str, cell: CellResult) -> CellResult:
        if len(device.ran) % 3:
            return cell
        return replace(
            cell, performance=tuple(replace(p, trust="invalid") for p in cell.performance)
        )

    device.after = every_third
    found = go(bisect.begin(question(config), tmp_path, tmp_path), device)
    assert found.verdict.first_bad == (4,)
    assert found.journal.broken == {}
    assert max(device.ran.count(name) for name in RECIPES) > 3
    assert sum(found.journal.wasted.values()) == len(device.ran) // 3


def test_sittings_of_few_pairs_are_joined(config: Path, tmp_path: Path) -> None:
    device = Device(tmp_path, 4)

    def short(_name: str, cell: CellResult) -> CellResult:
        (row,) = cell.performance
        few = tuple(one for one in row.samples if one.launch < 2)
        return replace(cell, performance=(replace(row, samples=few),))

    device.after = short
    found = go(bisect.begin(question(config), tmp_path, tmp_path), device)
    assert found.verdict.first_bad == (4,)
    assert all(one.df == 2 for one in found.journal.seen)
    assert len(found.journal.runs) - 1 == 2 * len(found.journal.seen), "two of two pairs each"


def _gone(cell: CellResult, outcome: Outcome, reason: str, flag: str) -> CellResult:
    return replace(cell, outcome=outcome, reason=reason, flags=(flag,), performance=(), attempts=())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": "tg64"}, "did you mean tg32"),
        ({"revisions": ("xnnpack-8da4w", "no such")}, "matrix.recipe.0"),
        ({"axis": "git"}, "--build COMMAND"),
        ({"build": "make"}, "--build COMMAND"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    config: Path, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        bisect.begin(question(config, **changes), tmp_path, tmp_path)
    assert not list(tmp_path.glob("*-bisect-*"))


def test_a_folder_without_a_search_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no search"):
        bisect.open_search(tmp_path)
    (tmp_path / bisect.JOURNAL).write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        bisect.open_search(tmp_path)


def test_revisions_of_each_kind(tmp_path: Path) -> None:
    for name in ("executorch-1.10.0-py3-none-any.whl", "executorch-1.9.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    listed = revisions.listed("toolchain", [str(tmp_path)], None)
    assert [Path(one).name.split("-")[1] for one in listed] == ["1.9.0", "1.10.0"]
    words = revisions.overrides("toolchain", listed[0], {})
    assert words[0] == f'toolchains={{"bisect": {{"executorch": "{listed[0]}"}}}}'
    assert '"==1.4.1"' in revisions.overrides("toolchain", "1.4.1", {})[0]
    entry = {"name": "m", "hf": "org/m", "tokenizer": "t.json"}
    (word,) = revisions.overrides("model", "org/m2", {"models": [entry]})
    assert yaml.safe_load(word.partition("=")[2]) == [{**entry, "hf": "org/m2"}]
    assert '"python": "/env/bin/python"' in revisions.overrides("runtime", "/env/bin/python", {})[0]
    with pytest.raises(ConfigError, match="there are 2"):
        revisions.overrides("model", "x", {"models": ["a", "b"]})
    for words_, says in ((["a"], "at least one more"), (["a", "a"], "named twice")):
        with pytest.raises(ConfigError, match=says):
            revisions.listed("recipe", words_, None)
    (tmp_path / "odd.whl").touch()
    with pytest.raises(ConfigError, match="not named as a wheel"):
        revisions.listed("toolchain", [str(tmp_path)], None)


def test_commits_of_a_checkout_are_built_once_each(tmp_path: Path) -> None:
    repo = tmp_path / "repo"

    def git(*words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        command = ["git", *who, "-C", str(repo), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    repo.mkdir()
    git("init", "--quiet")
    for number in range(3):
        (repo / "version").write_text(f"1.{number}.0")
        git("add", ".")
        git("commit", "--quiet", "-m", f"v{number}")
    span = f"{git('rev-parse', 'HEAD~2')}..HEAD"
    commits = revisions.listed("git", [span], repo)
    assert len(commits) == 3
    assert commits[2] == git("rev-parse", "HEAD")
    count = 'echo x >> "$FARM_BISECT_OUT.count"; '
    make = count + 'touch "$FARM_BISECT_OUT/executorch-$(cat version)-py3-none-any.whl"'
    checkout = Checkout(repo, make)
    for commit in (commits[1], commits[0], commits[1]):
        wheel = revisions.build(checkout, commit, tmp_path / "search")
    assert Path(wheel).name.startswith("executorch-1.1.0")
    assert (tmp_path / "search" / "builds" / f"{commits[1]}.count").read_text() == "x\n"
    with pytest.raises(ExportError, match=r"ended with 3: no compiler"):
        revisions.build(Checkout(repo, "echo no compiler; exit 3"), commits[2], tmp_path / "search")
    with pytest.raises(ExportError, match="left none"):
        revisions.build(Checkout(repo, "true"), commits[2], tmp_path / "search")
    with pytest.raises(ConfigError, match="--repo"):
        revisions.listed("git", ["a..b"], tmp_path)

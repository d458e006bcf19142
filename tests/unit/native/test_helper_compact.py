"""Logits in the form for slow links: what the helper writes is what the judge reads and needs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.core.artifact import LogitsRef, ObjectRef
from farm.core.errors import BadOutput
from farm.judge.compact import CompactLogits, open_compact
from farm.judge.logits import Logits, every_position, open_some
from farm.judge.metrics import compare
from tests.unit.judge.builders import disturbed, language

from .conftest import Answer, Helper

Rows = npt.NDArray[np.float32]
Row = npt.NDArray[np.floating]


def _call(
    helper: Helper, folder: Path, rows: Rows, ids: list[int], whole: int, top: int, buckets: int
) -> Answer:
    rows.astype("<f4").tofile(folder / "rows")
    np.array(ids, "<i4").tofile(folder / "ids")
    shape = {"rows": len(rows), "cols": rows.shape[1], "whole": whole, "top": top}
    options = [word for name, value in shape.items() for word in (f"--{name}", value)]
    words = ("compact", folder / "rows", folder / "out", "--next", folder / "ids")
    return helper(*words, *options, "--buckets", buckets)


def _compact(
    helper: Helper, folder: Path, rows: Rows, ids: list[int], whole: int, top: int, buckets: int
) -> CompactLogits:
    answer = _call(helper, folder, rows, ids, whole, top, buckets).value
    assert answer["finite"] is True
    found = ObjectRef(answer["sha256"], answer["size"], "x")
    opened = open_some(folder / "out", LogitsRef(found, len(rows), rows.shape[1], "0" * 64))
    assert isinstance(opened, CompactLogits)
    return opened


def _grouped_kl(a: Row, b: Row, groups: list[list[int]]) -> float:
    """KL(a || b) of what falls into each group of ids, from the definition."""
    wide = [row.astype(np.float64) for row in (a, b)]
    log_p, log_q = (row - math.log(math.fsum(np.exp(row))) for row in wide)
    total = []
    for group in groups:
        p, q = (math.fsum(math.exp(x[i]) for i in group) for x in (log_p, log_q))
        total.append(p * (math.log(p) - math.log(q)))
    return math.fsum(total)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(3, 12),
    cols=st.integers(2, 40),
    whole=st.integers(2, 4),
    top=st.integers(1, 50),
    buckets=st.integers(1, 50),
)
def test_what_comes_back_is_what_was_there(
    helper: Helper,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rows: int,
    cols: int,
    whole: int,
    top: int,
    buckets: int,
) -> None:
    random, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("form")
    # Some values are equal: which of them is kept must not depend on chance.
    device = random.normal(0, 3, (rows, cols)).round(1).astype(np.float32)
    host = (device + random.normal(0, 0.3, (rows, cols))).astype(np.float32)
    ids = [int(random.integers(-1, cols)) for _ in range(rows)]
    whole, top, buckets = min(whole, rows - 1), min(top, cols), min(buckets, cols)
    found = _compact(helper, folder, device, ids, whole, top, buckets)
    assert found.whole[0] == 0
    assert found.whole[-1] == rows - 1
    others = [index for index in range(rows) if index not in found.whole]
    seen = compare(every_position(host), Logits(found, tuple(range(rows))), [0] * (rows + 1))
    assert seen.compact is not None
    for index in found.whole:
        assert found.row(index) is not None
        assert found.values[found.whole.index(index)].tolist() == device[index].tolist()
    for place, index in enumerate(others):
        assert found.row(index) is None
        kept = found.ids[place].tolist()
        assert np.array_equal(found.logits[place], device[index, kept])
        order = sorted(range(cols), key=lambda i: (-device[index, i], i))
        expected = set(order[:top])
        if ids[index] >= 0 and ids[index] not in expected:
            expected = set(order[: top - 1]) | {ids[index]}
        assert kept == sorted(expected)
        rest = [i for i in range(cols) if i not in kept]
        groups = [[i] for i in kept]
        groups += [[i for i in rest if i * buckets // cols == b] for b in range(buckets)]
        groups = [group for group in groups if group]
        like = found.like(index, host[index].astype(np.float64))
        coarse = _grouped_kl(host[index], device[index], groups)
        assert _grouped_kl(host[index], like, [[i] for i in range(cols)]) == pytest.approx(
            coarse, rel=1e-9, abs=1e-12
        )
        every = _grouped_kl(host[index], device[index], [[i] for i in range(cols)])
        assert coarse <= every + 1e-12, "a lower bound"


def test_figures_of_the_compact_form_are_those_of_the_rows(helper: Helper, tmp_path: Path) -> None:
    logits, tokens = language()
    other = disturbed(logits, 0.5)
    rows, cols = other.shape
    ids = [*tokens[1:], -1][:rows]
    found = _compact(helper, tmp_path, other, ids, 4, cols // 2, cols // 4)
    positions = tuple(range(rows))
    real = compare(every_position(logits), every_position(other), tokens)
    for seen in (
        compare(every_position(logits), Logits(found, positions), tokens),
        compare(Logits(found, positions), every_position(logits), tokens),
    ):
        assert not seen.bit_equal
        assert seen.top1_agreement == real.top1_agreement
        assert seen.first_divergence == real.first_divergence
        assert seen.compact is not None
        assert seen.compact.whole == 4
        assert seen.compact.tells
        assert seen.compact.kl_coarse <= seen.compact.kl_whole
    seen = compare(every_position(logits), Logits(found, positions), tokens)
    assert seen.perplexity_to == pytest.approx(real.perplexity_to, rel=1e-12)
    assert seen.kl_mean == pytest.approx(real.kl_mean, rel=0.1)
    some = list(found.whole)
    whole = compare(Logits(logits[some], tuple(some)), Logits(other[some], tuple(some)), tokens)
    assert seen.max_abs_error == whole.max_abs_error
    assert seen.relation == whole.relation
    assert seen.cosine_min == whole.cosine_min


def test_a_form_that_shows_too_little_says_so(helper: Helper, tmp_path: Path) -> None:
    logits, tokens = language()
    found = _compact(helper, tmp_path, disturbed(logits, 0.5), [-1] * len(logits), 4, 1, 1)
    seen = compare(every_position(logits), Logits(found, tuple(range(len(logits)))), tokens)
    assert seen.compact is not None
    assert not seen.compact.tells


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3])
def test_no_form_is_made_of_what_is_not_finite(
    helper: Helper, tmp_path: Path, value: float, row: int
) -> None:
    rows = np.zeros((8, 16), np.float32)
    rows[row, 5] = value
    answer = _call(helper, tmp_path, rows, [-1] * 8, 2, 4, 4).value
    assert answer == {"finite": False}


def test_another_shape_is_refused(helper: Helper, tmp_path: Path) -> None:
    rows = np.zeros((8, 16), np.float32)
    assert _call(helper, tmp_path, rows, [-1] * 7, 2, 4, 4).error == "bad_ids"
    assert _call(helper, tmp_path, rows, [16] * 8, 2, 4, 4).error == "bad_ids"
    (tmp_path / "rows").write_bytes(b"1234")
    words = ("compact", tmp_path / "rows", tmp_path / "out", "--next", tmp_path / "ids")
    shape = ("--rows", 8, "--cols", 16, "--whole", 2, "--top", 4, "--buckets", 4)
    assert helper(*words, *shape).error == "bad_logits"


def test_a_file_of_another_form_is_refused(helper: Helper, tmp_path: Path) -> None:
    rows = np.zeros((8, 16), np.float32)
    answer = _call(helper, tmp_path, rows, [-1] * 8, 2, 4, 4).value
    ref = LogitsRef(ObjectRef(answer["sha256"], answer["size"], "x"), 8, 16, "0" * 64)
    whole = (tmp_path / "out").read_bytes()
    open_compact(tmp_path / "out", ref)
    beyond = whole[: -4 * 8] + b"\xff" * 32
    huge = whole[:16] + b"\xff" * 8 + whole[24:]
    for content in (whole[:-1], b"", whole[:20], b"ABCD" + whole[4:], beyond, huge):
        (tmp_path / "out").write_bytes(content or b"\0")
        with pytest.raises(BadOutput):
            open_compact(tmp_path / "out", ref)

from __future__ import annotations

import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.artifact import LogitsRef, ObjectRef
from farm.core.errors import BadOutput, StoreError
from farm.judge import metrics
from farm.judge.logits import Logits, Matrix, every_position, open_logits
from farm.judge.metrics import compare
from tests.unit.judge.builders import disturbed, language


def naive_kl(a: Matrix, b: Matrix) -> list[float]:
    """Straight from the definition, one row at a time, in Python floats."""
    rows = []
    for row_a, row_b in zip(a.tolist(), b.tolist(), strict=True):
        log_a = math.log(math.fsum(math.exp(x - max(row_a)) for x in row_a)) + max(row_a)
        log_b = math.log(math.fsum(math.exp(x - max(row_b)) for x in row_b)) + max(row_b)
        terms = (
            math.exp(x - log_a) * ((x - log_a) - (y - log_b))
            for x, y in zip(row_a, row_b, strict=True)
        )
        rows.append(math.fsum(terms))
    return rows


def test_equal_matrices_are_bit_equal_and_at_no_distance() -> None:
    logits, tokens = language()
    result = compare(every_position(logits), every_position(logits.copy()), tokens)
    assert result.bit_equal
    assert (result.kl_mean, result.kl_max, result.max_abs_error) == (0.0, 0.0, 0.0)
    assert (result.top1_agreement, result.cosine_min) == (1.0, 1.0)
    assert result.first_divergence is None
    assert result.perplexity_from == result.perplexity_to


def test_figures_follow_their_definitions() -> None:
    logits, tokens = language()
    other = disturbed(logits, 0.5)
    result = compare(every_position(logits), every_position(other), tokens)
    kl = naive_kl(logits, other)
    assert result.kl_mean == pytest.approx(sum(kl) / len(kl), rel=1e-9)
    assert result.kl_max == pytest.approx(max(kl), rel=1e-9)
    same = logits.argmax(1) == other.argmax(1)
    assert result.top1_agreement == pytest.approx(same.mean())
    assert result.first_divergence == int(np.flatnonzero(~same)[0])
    assert result.max_abs_error == pytest.approx(np.abs(logits - other).max(), rel=1e-6)
    cosines = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(logits.astype(np.float64), other.astype(np.float64), strict=True)
    ]
    assert result.cosine_min == pytest.approx(min(cosines), rel=1e-9)


def test_perplexity_takes_the_next_token_and_leaves_the_last_row_out() -> None:
    logits, tokens = language()
    result = compare(every_position(logits), every_position(disturbed(logits, 0.1)), tokens)
    wide = logits.astype(np.float64)
    log_p = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    nll = [-log_p[p, tokens[p + 1]] for p in range(len(tokens) - 1)]
    assert result.perplexity_from == pytest.approx(math.exp(np.mean(nll)), rel=1e-9)
    assert result.perplexity_change is not None
    assert result.perplexity_change.positions == len(tokens) - 1


def test_rows_are_matched_by_position_not_by_index() -> None:
    logits, tokens = language()
    some = (15, 31, 127)
    result = compare(every_position(logits), Logits(logits[list(some)], some), tokens)
    assert (result.rows, result.bit_equal) == (3, True)
    assert result.perplexity_change is not None
    assert result.perplexity_change.positions == 2


def test_minus_zero_is_not_bit_equal_to_zero() -> None:
    a = np.zeros((1, 4), np.float32)
    result = compare(every_position(a), every_position(-a), (1,))
    assert not result.bit_equal
    assert result.max_abs_error == 0.0
    assert result.cosine_min == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["from", "to"])
def test_nan_and_infinity_are_named_and_leave_no_numbers(value: float, side: str) -> None:
    logits, tokens = language()
    broken = logits.copy()
    broken[17, 3] = value
    pair = (broken, logits) if side == "from" else (logits, broken)
    result = compare(every_position(pair[0]), every_position(pair[1]), tokens)
    assert result.non_finite == metrics.NonFinite(side, 17)
    assert not result.bit_equal
    assert (result.kl_mean, result.cosine_min, result.perplexity_to) == (None, None, None)


def test_huge_logits_give_finite_numbers() -> None:
    a = np.full((3, 5), -3e38, np.float32)
    a[:, 0] = 3e38
    b = -a
    result = compare(every_position(a), every_position(b), (0, 1, 1))
    for name in ("kl_mean", "kl_max", "cosine_min", "max_abs_error", "perplexity_from"):
        assert math.isfinite(getattr(result, name)), name
    assert result.perplexity_change is not None
    assert math.isfinite(math.expm1(result.perplexity_change.log_ratio))


def test_blocks_give_the_same_as_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, tokens = language()
    other = disturbed(logits, 0.2)
    whole = compare(every_position(logits), every_position(other), tokens)
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 700)
    parts = compare(every_position(logits), every_position(other), tokens)
    assert parts.kl_mean == pytest.approx(whole.kl_mean, rel=1e-12)
    assert parts.first_divergence == whole.first_divergence
    assert parts.perplexity_to == pytest.approx(whole.perplexity_to, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(2, 9),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 30),
)
def test_kl_is_never_negative_and_agreement_is_a_share(
    rows: int, cols: int, seed: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    a = (scale * random.standard_normal((rows, cols))).astype(np.float32)
    b = (scale * random.standard_normal((rows, cols))).astype(np.float32)
    tokens = [int(t) for t in random.integers(0, cols, rows + 1)]
    result = compare(every_position(a), every_position(b), tokens)
    assert result.kl_mean is not None
    assert result.kl_max is not None
    assert result.top1_agreement is not None
    assert result.cosine_min is not None
    assert 0 <= result.kl_mean <= result.kl_max
    assert 0 <= result.top1_agreement <= 1
    assert -1 <= result.cosine_min <= 1
    assert result.kl_max == pytest.approx(max(naive_kl(a, b)), rel=1e-6, abs=1e-9)


def test_caller_mistakes_are_refused() -> None:
    a = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="vocabular"):
        compare(every_position(a), every_position(np.zeros((2, 5), np.float32)), (0, 1))
    with pytest.raises(ValueError, match="position"):
        compare(Logits(a, (0,)), every_position(a), (0, 1))
    with pytest.raises(ValueError, match="no common"):
        compare(Logits(a, (0, 1)), Logits(a, (2, 3)), (0, 1))


def test_a_large_vocabulary_takes_under_two_seconds() -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal((256, 49152), dtype=np.float32)
    b = a + np.float32(0.01)
    b[:, 0] += 1
    started = time.process_time()
    compare(every_position(a), every_position(b), [0] * 257)
    assert time.process_time() - started < 2.0


def test_logits_files_are_mapped_and_checked(tmp_path: Path) -> None:
    values = np.arange(12, dtype="<f4").reshape(3, 4)
    path = tmp_path / "decode.f32"
    path.write_bytes(values.tobytes())
    ref = ObjectRef("0" * 64, 48, "decode.f32")
    assert np.array_equal(open_logits(path, LogitsRef(ref, 3, 4)), values)
    with pytest.raises(BadOutput, match="48 bytes"):
        open_logits(path, LogitsRef(ref, 4, 4))
    with pytest.raises(StoreError, match="missing"):
        open_logits(tmp_path / "missing", LogitsRef(ref, 3, 4))


def test_memory_stays_flat_however_many_rows(tmp_path: Path) -> None:
    vocabulary, peaks = 4096, []
    for rows in (256, 2048):
        files = []
        for name in ("a", "b"):
            values = np.random.default_rng(rows).standard_normal((rows, vocabulary), np.float32)
            path = tmp_path / f"{name}{rows}"
            (values + np.float32(name == "b")).tofile(path)
            ref = LogitsRef(ObjectRef("0" * 64, 0, name), rows, vocabulary)
            files.append(every_position(open_logits(path, ref)))
        tracemalloc.start()
        compare(files[0], files[1], [0] * rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + (1 << 20)
    assert peaks[1] < 48 << 20

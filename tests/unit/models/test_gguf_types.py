"""Quantised tensors of a GGUF against decoders that follow the formats' descriptions, slowly.

llama.cpp falls back to some of them where rows aren't whole blocks of 256, and its users choose
others to save space: a file of any of them has to be read, and read rightly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy
import pytest

from tests.unit.models.test_sources import opened, packed, tensors, write_gguf

NAME = "layers.0.feed_forward.w2.weight"
#: The sixteen values of the non-linear 4-bit types.
_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def half(data: bytes) -> float:
    return float(numpy.frombuffer(data, numpy.float16)[0])


def iq4_nl(block: bytes) -> list[float]:
    """Scale, then 32 numbers of 4 bits: low halves of the bytes first."""
    scale, numbers = half(block[:2]), block[2:]
    return [scale * _LEVELS[byte & 15] for byte in numbers] + [
        scale * _LEVELS[byte >> 4] for byte in numbers
    ]


def iq4_xs(block: bytes) -> list[float]:
    """Scale, high and low parts of eight factors of 6 bits, then the numbers."""
    scale, high = half(block[:2]), int.from_bytes(block[2:4], "little")
    found = []
    for part in range(8):
        low = block[4 + part // 2] >> 4 * (part % 2) & 15
        factor = scale * ((low | (high >> 2 * part & 3) << 4) - 32)
        numbers = block[8 + 16 * part :][:16]
        found += [factor * _LEVELS[byte & 15] for byte in numbers]
        found += [factor * _LEVELS[byte >> 4] for byte in numbers]
    return found


def q2_k(block: bytes) -> list[float]:
    """Sixteen factors and offsets of 4 bits each, the numbers of 2 bits, both scales."""
    scale, least = half(block[80:82]), half(block[82:84])
    found = []
    for part in range(16):
        start, shift = 16 + part // 8 * 32 + part % 2 * 16, part % 8 // 2 * 2
        factor, offset = scale * (block[part] & 15), least * (block[part] >> 4)
        found += [factor * (byte >> shift & 3) - offset for byte in block[start : start + 16]]
    return found


def q3_k(block: bytes) -> list[float]:
    """High bits, the numbers' two low bits, sixteen factors of 6 bits, the scale."""
    top, numbers, factors, scale = block[:32], block[32:96], block[96:108], half(block[108:])
    found = []
    for part in range(16):
        low = factors[part] & 15 if part < 8 else factors[part - 8] >> 4
        factor = scale * ((low | (factors[8 + part % 4] >> part // 4 * 2 & 3) << 4) - 32)
        start, column, shift = part // 8 * 32, part % 2 * 16, part % 8 // 2 * 2
        for index in range(column, column + 16):
            number = numbers[start + index] >> shift & 3
            found.append(factor * (number - (0 if top[index] >> part // 2 & 1 else 4)))
    return found


@pytest.mark.parametrize("decode", [iq4_nl, iq4_xs, q2_k, q3_k], ids=lambda f: f.__name__.upper())
def test_types_are_decoded_as_their_formats_say(
    decode: Callable[[bytes], list[float]], tmp_path: Path
) -> None:
    kind = gguf.GGMLQuantizationType[decode.__name__.upper()]
    path = tmp_path / "model.gguf"
    write_gguf(path, kind.name)
    found = opened("gguf", path, tmp_path).tensor(NAME).numpy()
    rows = packed(tensors()[NAME], kind)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = [[bytes(row[at : at + size]) for at in range(0, len(row), size)] for row in rows]
    expected = numpy.array([[x for block in row for x in decode(block)] for row in blocks])
    assert found.shape == expected.shape
    assert numpy.abs(expected).max() > 0.1
    assert numpy.allclose(found, expected, rtol=1e-5, atol=1e-6)

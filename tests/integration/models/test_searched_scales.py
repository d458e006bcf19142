"""Weights whose scales were searched for (HQQ), held against their source as an artifact is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
import pytest
import torch

from farm.core.artifact import TensorCheck
from farm.judge.weights import weight_fault
from models.eager.quantise import LinearFormat, QuantisedWeight, quantise_weight
from tests.integration.models import exports

FORM = LinearFormat(bits=4, group=32, dynamic=True, searched=True)
SHAPE = (96, 128)


@dataclass
class Named:
    named: Mapping[str, memoryview] = field(default_factory=dict)

    def constants(self) -> Iterator[Any]:
        return iter(())


def weights(kind: str) -> torch.Tensor:
    torch.manual_seed(7)
    match kind:
        case "normal":
            return torch.randn(SHAPE)
        case "uniform":
            return torch.rand(SHAPE) - 0.5
        case "heavy tails":
            return torch.distributions.StudentT(4.0).sample(SHAPE)
        case _:
            return torch.randn(SHAPE) * (torch.rand(SHAPE) < 0.1)


def quantised(source: torch.Tensor) -> QuantisedWeight:
    with exports.library_noise():
        return quantise_weight(source, FORM)


def checked(source: torch.Tensor, values: torch.Tensor, scales: torch.Tensor) -> TensorCheck:
    codes = (values.to(torch.int16) + 8).numpy().astype("u1")
    packed = codes[:, ::2] | (codes[:, 1::2] << 4)
    data = scales.to(torch.bfloat16).view(torch.int16).numpy()
    written = Named({"v": memoryview(packed.tobytes()), "s": memoryview(data.tobytes())})
    with exports.library_noise():
        from models.lowering import audit
    return audit._check_linear(audit.Placed("a.weight", ("v",), "s"), source, FORM, written)


@pytest.mark.parametrize("kind", ["normal", "uniform", "heavy tails", "sparse"])
def test_a_search_is_no_fault_and_a_wrong_scale_is_one(kind: str) -> None:
    source = weights(kind)
    made = quantised(source)
    assert weight_fault(checked(source, made.values, made.scales)) == ""
    largest = int(made.scales.flatten().argmax())
    # A group of one large weight and little else says nothing of 10 %.
    small = (0.9, 1.1) if kind in ("normal", "uniform") else ()
    for factor in (0.0, 2.0, *small):
        scales = made.scales.clone()
        scales.view(-1)[largest] *= factor
        assert weight_fault(checked(source, made.values, scales)), factor
    swapped = made.values.roll(1, dims=0)
    assert weight_fault(checked(source, swapped, made.scales))


def test_scales_of_rows_aside_half_a_step_is_all_that_is_lost() -> None:
    source = weights("normal")
    made = quantised(source)
    values = made.values.clone()
    inner = numpy.argwhere(values.numpy() == 0)[0]
    values[tuple(inner)] = 1
    assert "steps" in weight_fault(checked(source, values, made.scales))

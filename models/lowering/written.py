"""A written program read back: the bytes that a device will compute with, wherever they stand.

It maps files and parses their tables; it doesn't know what any constant means.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing as npt

from farm.core.errors import ExportError
from models.lowering.private import (
    DataLocation,
    DelegateCall,
    FlatTensorSerializer,
    ScalarType,
    program_header,
    read_program,
)

#: What a scalar type is in numpy. Others aren't read.
_TYPES = {ScalarType.FLOAT: "<f4", ScalarType.CHAR: "i1", ScalarType.BYTE: "u1"}


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant tensor of the program around the delegates."""

    #: Numbers in the shape that the program gives them.
    values: npt.NDArray[numpy.generic]


class Written:
    """The constants of a program and of its external weights."""

    def __init__(self, program: Path, data: Path | None = None) -> None:
        """Open the files.

        Raises:
            ExportError: One isn't what ExecuTorch writes.
        """
        #: The whole program.
        self.raw = _mapped(program)
        header = program_header(bytes(self.raw[:64]))
        if header is None or not header.is_valid():
            raise ExportError(f"{program}: no segments; its weights can't be read back")
        self._program = read_program(bytes(self.raw[: header.program_size]))
        self._base = header.segment_base_offset
        named = {
            entry.key: self._segment(entry.segment_index)
            for entry in self._program.named_data or ()
        }
        self._external: dict[str, memoryview] = {}
        if data is not None:
            payload = FlatTensorSerializer().deserialize(data.read_bytes())
            for key, entry in payload.named_data.items():
                found = memoryview(bytes(payload.buffers[entry.buffer_index]))
                named[key] = self._external[key] = found
        #: Constants of delegates, by the name that they ask for them with.
        self.named: Mapping[str, memoryview] = named

    def delegates(self) -> list[bytes]:
        """Programs of the delegates that `forward` calls, in the order of its calls."""
        (plan,) = (plan for plan in self._program.execution_plan if plan.name == "forward")
        calls = (
            instruction.instr_args
            for chain in plan.chains
            for instruction in chain.instructions
            if isinstance(instruction.instr_args, DelegateCall)
        )
        return [self._processed(plan.delegates[call.delegate_index].processed) for call in calls]

    def _processed(self, place: Any) -> bytes:
        if place.location == DataLocation.SEGMENT:
            return bytes(self._segment(place.index))
        return bytes(self._program.backend_delegate_data[place.index].data)

    def constants(self) -> Iterator[Constant]:
        """Constant tensors outside the delegates."""
        for plan in self._program.execution_plan:
            for value in plan.values:
                tensor = value.val
                kind = _TYPES.get(getattr(tensor, "scalar_type", None))
                if kind is None:
                    continue
                data = self._data_of(tensor)
                count = int(numpy.prod(tensor.sizes, dtype=numpy.int64))
                if data is None or len(data) < count * numpy.dtype(kind).itemsize:
                    continue
                flat = numpy.frombuffer(data, kind, count)
                yield Constant(flat.reshape(tensor.sizes))

    def _data_of(self, tensor: object) -> memoryview | None:
        extra = getattr(tensor, "extra_tensor_info", None)
        name = None if extra is None else extra.fully_qualified_name
        if name in self._external:
            return self._external[name]
        index = getattr(tensor, "data_buffer_idx", 0)
        offsets = self._program.constant_segment.offsets
        if getattr(tensor, "allocation_info", None) is not None or not 0 < index < len(offsets):
            return None
        whole = self._segment(self._program.constant_segment.segment_index)
        end = offsets[index + 1] if index + 1 < len(offsets) else len(whole)
        return whole[offsets[index] : end]

    def _segment(self, index: int) -> memoryview:
        segment = self._program.segments[index]
        start = self._base + segment.offset
        return self.raw[start : start + segment.size]


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

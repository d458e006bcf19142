"""Compare one layer's values with PyTorch's, each computed alone: `compare.py OUTPUT`.

Needs Python 3 and nothing else. PyTorch was given what was recorded on the first device; another
one's values drift a little on the way through the layer: what counts is the first that is off.
"""

import array
import math
import sys


def numbers(path: str) -> "array.array[float]":
    """Read raw little-endian float32."""
    values = array.array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    if sys.byteorder != "little":
        values.byteswap()
    return values


def main(path: str) -> int:
    """Print a line an operator; 1 when one is off, 2 when the output has another size."""
    with open("columns.tsv", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    rows = int(lines[0][1])
    total = sum(int(line[1]) for line in lines[1:])
    found, wanted = numbers(path), numbers("expected.f32")
    if len(found) != rows * total:
        print(f"{path} holds {len(found)} numbers, {rows * total} are expected")
        return 2
    print(f"same bytes as recorded: {'yes' if found == numbers('device.f32') else 'no'}")
    print(f"{'operator':<24} {'relative error':>15} {'allowed':>9}")
    start, wrong = 0, 0
    for name, columns, limit in lines[1:]:
        width, errors = int(columns), []
        for row in range(rows):
            places = range(row * total + start, row * total + start + width)
            size = math.sqrt(sum(wanted[i] ** 2 for i in places)) or 1e-30
            errors.append(math.sqrt(sum((found[i] - wanted[i]) ** 2 for i in places)) / size)
        error = sorted(errors)[rows // 2] if all(map(math.isfinite, errors)) else math.nan
        off = not error <= float(limit)
        wrong += off
        print(f"{name:<24} {error:>15.3g} {limit:>9}{'  <- off' if off else ''}")
        start += width
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

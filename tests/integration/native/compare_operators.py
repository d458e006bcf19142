"""Prints the largest difference between farm's attention and torch.ops.llama.custom_sdpa.

Run as a program with the path of the compiled kernel driver; 500 seeded shapes.
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys


def main(program: str) -> None:
    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    driver = subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "FARM_TEST_THREADS": "2"},
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    draw = random.Random(17)
    torch.manual_seed(17)
    worst, shapes = 0.0, 0
    while shapes < 500:
        kv_heads, cache = draw.randint(1, 4), draw.randint(1, 400)
        heads = kv_heads * draw.choice([1, 1, 2, 3, 4, 8])
        width = draw.choice([draw.randint(1, 80), 32, 64, 96, 128])
        masked = draw.random() < 0.3
        tokens = draw.randint(1, min(cache, draw.choice([1, 4, 64, 130])))
        start = 0 if masked else draw.randint(0, cache - tokens)
        query = torch.randn(1, tokens, heads, width)
        key = torch.randn(1, cache, kv_heads, width)
        value = torch.randn(1, cache, kv_heads, width)
        mask = torch.randn(tokens, cache) if masked else None
        expected = torch.ops.llama.custom_sdpa(query, key, value, start, mask, 0.0, not masked)
        head = (1, tokens, heads, kv_heads, width, cache, start, int(not masked), 0, int(masked))
        body = b"".join(t.numpy().tobytes() for t in (query, key, value, mask) if t is not None)
        driver.stdin.write(struct.pack("<10qf", *head, width**-0.5) + body)
        driver.stdin.flush()
        raw = bytearray(driver.stdout.read(query.numel() * 4))
        ours = torch.frombuffer(raw, dtype=torch.float32).view_as(query)
        worst = max(worst, float((ours - expected).abs().max()))
        shapes += 1
    driver.stdin.close()
    assert driver.wait() == 0
    print(json.dumps({"shapes": shapes, "max_abs_error": worst}))


if __name__ == "__main__":
    main(sys.argv[1])

"""Rows of random bits, against Philox4x32-10 in Python's integers."""

from __future__ import annotations

import numpy as np

from chainrule.primitives import bits as p

from .table import Array, Operation, case

MASK = 0xFFFFFFFF


def philox(key: int, counter: int) -> list[int]:
    """One block of four words (Salmon et al., 2011, section 3)."""
    words = [counter & MASK, counter >> 32 & MASK, 0, 0]
    keys = [key & MASK, key >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [
            second >> 32 ^ words[1] ^ keys[0], second & MASK,
            first >> 32 ^ words[3] ^ keys[1], first & MASK,
        ]  # fmt: skip
        keys = [(keys[0] + 0x9E3779B9) & MASK, (keys[1] + 0xBB67AE85) & MASK]
    return words


def random_bits(state: Array, shape: tuple[int, ...]) -> Array:
    key, counter = map(int, state)
    n = int(np.prod(shape))
    words = [w for block in range(-(-n // 4)) for w in philox(key, counter + block)]
    return np.array(words[:n], np.uint32).reshape(shape)


def advance(state: Array, blocks: int) -> Array:
    return np.array([int(state[0]), (int(state[1]) + blocks) % 2**64], np.uint64)


def state(key: int, counter: int) -> Array:
    return np.array([key, counter], np.uint64)


ROWS = (
    Operation(
        "random_bits", p.random_bits,
        (
            case(state(0, 0), shape=(3, 3)), case(state(2**64 - 5, 2**32 - 1), shape=(11,)),
            case(state(7, 2**63), shape=()), case(state(1, 1), shape=(0, 2)),
        ),
        random_bits, None, p.random_bits, derivative=False,
    ),
    Operation(
        "advance", p.advance, (case(state(3, 5), blocks=7), case(state(3, 2**64 - 1), blocks=2)),
        advance, None, p.advance, derivative=False,
    ),
)  # fmt: skip

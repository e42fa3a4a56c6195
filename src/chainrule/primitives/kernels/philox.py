"""Philox4x32-10, a counter-based random number generator.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011. A bijection of a 128-bit counter under a 64-bit key: any number of the stream is computed
on its own, so the same key and counter give the same bits in any order and on any machine.
"""

from __future__ import annotations

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: the key schedule's increments
ROUNDS = 10
MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF
CHUNK = 16384  # blocks at a time: six uint64 work arrays of 128 KiB stay in the second-level cache


Words = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def philox_rounds(words: Words, key: int) -> None:
    """Encrypt counters in place: four uint64 arrays that hold 32-bit words c0, c1, c2, c3.

    Per round: (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)).
    """
    c0, c1, c2, c3 = words
    k0, k1 = key & MASK32, key >> 32 & MASK32
    mask, half = np.uint64(MASK32), np.uint64(32)
    m0, m1 = map(np.uint64, MULTIPLIERS)
    p0, p1 = np.empty_like(c0), np.empty_like(c0)
    for _ in range(ROUNDS):
        np.multiply(c0, m0, out=p0)
        np.multiply(c2, m1, out=p1)
        np.right_shift(p1, half, out=c0)
        c0 ^= c1
        c0 ^= np.uint64(k0)
        np.right_shift(p0, half, out=c2)
        c2 ^= c3
        c2 ^= np.uint64(k1)
        np.bitwise_and(p1, mask, out=c1)
        np.bitwise_and(p0, mask, out=c3)
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32


def philox_bits(key: int, counter: int, n: int) -> np.ndarray:
    """n random 32-bit words (uint32): element i is lane i % 4 of block ``counter + i // 4``.

    key: 64 bits. counter: 64 bits, the first block's number, counted modulo 2^64; the counter's
    four words are (low, high, 0, 0).
    """
    blocks = -(-n // 4)
    bits = np.empty((blocks, 4), np.uint32)
    for start in range(0, blocks, CHUNK):
        size = min(CHUNK, blocks - start)
        number = np.arange(size, dtype=np.uint64)
        number += np.uint64((counter + start) & MASK64)
        zeros = np.zeros((2, size), np.uint64)
        words = (number & np.uint64(MASK32), number >> np.uint64(32), zeros[0], zeros[1])
        philox_rounds(words, key)
        for lane, word in enumerate(words):
            bits[start : start + size, lane] = word
    return bits.reshape(-1)[:n]


def fold(key: int, data: int) -> int:
    """A new 64-bit key from a key and an integer, for splitting one stream into many.

    The first 64 bits of Philox under ``key`` at the counter (low(data), high(data), 0, 1): the last
    word keeps these counters apart from those that :func:`philox_bits` uses under the same key.
    Different ``data`` (modulo 2^64) under one key encrypt different counters.
    """
    low, high = (np.array([v], np.uint64) for v in (data & MASK32, data >> 32 & MASK32))
    philox_rounds((low, high, np.array([0], np.uint64), np.array([1], np.uint64)), key)
    return int(low[0]) | int(high[0]) << 32

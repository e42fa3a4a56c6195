"""What the tests of files share."""

import json

from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64",
]  # fmt: skip


def arrays(dtypes=tuple(DTYPES)):
    return hnp.arrays(
        st.sampled_from(dtypes), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
    )


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def write_raw(path, entries, metadata=None):
    """A safetensors file by hand: entries are (name, dtype, shape, bytes)."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, dtype, shape, content in entries:
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)

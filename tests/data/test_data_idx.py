"""IDX and CIFAR files: what is right is read, what is wrong is named."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import data
from chainrule.data.idx import read_idx_pair
from chainrule.errors import DataError, FileError

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx_bytes(array, code=8, dtype="u1"):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(dtype).tobytes()


@given(
    dtype=st.sampled_from(list(CODES)),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    packed=st.booleans(),
)
def test_round_trip(tmp_path_factory, dtype, shape, packed):
    array = (np.arange(np.prod(shape)) % 100).reshape(shape)
    content = idx_bytes(array, CODES[dtype], dtype)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    out = data.read_idx(path)
    np.testing.assert_array_equal(out, array)
    assert out.dtype == np.dtype(dtype).newbyteorder("=") and out.dtype.isnative


GOOD = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not an IDX file.*\(none\)"),
        (b"\x00\x00", "not an IDX file"),
        (b"\x89PNG\r\n", "not an IDX file: it begins with the bytes 89 50 4e 47"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x00", "not an IDX file"),
        (b"\x00\x00\x08\x00", "not an IDX file"),
        (GOOD[:10], "cut short: it ends within its header of 3 sizes"),
        (GOOD[:-1], r"cut short: it has 23 bytes of values, but its header says 24"),
        (GOOD + b"x", "bytes after its end: more than 24"),
        (b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "more than the limit"),
        (gzip.compress(GOOD, mtime=0)[:-12], "is damaged"),
        (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "is damaged: CRC"),
        (b"\x1f\x8b" + bytes(20), "is damaged"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "is damaged"),
    ],
)
def test_damage_is_named(tmp_path, content, message):
    path = tmp_path / "train-images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        data.read_idx(tmp_path / "nothing")
    with pytest.raises(FileError, match="folder"):
        data.read_idx(tmp_path)


def test_images_and_labels_must_go_together(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(GOOD)
    labels.write_bytes(idx_bytes(np.array([1, 2])))
    x, y = read_idx_pair(images, labels)
    assert x.shape == (2, 3, 4) and y.tolist() == [1, 2]
    labels.write_bytes(idx_bytes(np.array([1, 2, 3])))
    with pytest.raises(DataError, match=r"'.*labels' holds .* the 2 images of '.*images'"):
        read_idx_pair(images, labels)
    with pytest.raises(DataError, match="images are uint8"):
        read_idx_pair(labels, labels)


def test_cifar_records(tmp_path):
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (3, 3073), dtype=np.uint8)
    table[:, 0] = [4, 9, 0]
    for packed in (False, True):
        path = tmp_path / "batch.bin"
        path.write_bytes(gzip.compress(table.tobytes()) if packed else table.tobytes())
        images, labels = data.read_cifar(path)
        assert labels.tolist() == [4, 9, 0]
        # Plane by plane, row by row: green at (5, 7) is byte 1 + 1024 + 5 * 32 + 7.
        assert images[1, 1, 5, 7] == table[1, 1 + 1024 + 5 * 32 + 7]


def test_cifar_damage_is_named(tmp_path):
    path = tmp_path / "batch.bin"
    for content in (b"", bytes(3072), bytes(3074)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not a whole number of records of 3,073 bytes"):
            data.read_cifar(path)
    table = np.zeros((3, 3073), np.uint8)
    table[1, 0] = 10
    path.write_bytes(table.tobytes())
    with pytest.raises(DataError, match="record 1 has the label 10"):
        data.read_cifar(path)

"""Image files and folders of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chainrule import data
from chainrule.data import notices
from chainrule.errors import ArgumentError, DataError, FileError, MissingExtraError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def fresh_notices(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


def picture(h=6, w=5, channels=3):
    shape = (h, w) if channels == 1 else (h, w, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def animals(tmp_path):
    """Two classes, three and two images of 6 x 5 pixels, and what else lies about."""
    root = tmp_path / "animals"
    pixels = {}
    for name in ("dogs/b.png", "dogs/a.png", "cats/1.bmp", "cats/deep/2.PNG", "cats/3.tif"):
        pixels[name] = picture()
        save(root / name, pixels[name])
    (root / "cats" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    (root / "dogs" / ".DS_Store").write_text("")
    return root, pixels


def test_folder(animals, caplog):
    root, pixels = animals
    with caplog.at_level(logging.WARNING):
        dataset = data.folder(root)
    assert dataset.classes == ["cats", "dogs"] and dataset.name == "animals"
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1] and dataset.shape == (3, 6, 5)
    order = ["cats/1.bmp", "cats/3.tif", "cats/deep/2.PNG", "dogs/a.png", "dogs/b.png"]
    for (image, _), name in zip(dataset, order, strict=True):
        expected = pixels[name].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(image, expected)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "passed over a file that is no image by name" in message and "notes.txt" in message


def test_large_folders_are_read_image_by_image(animals):
    root, _ = animals
    eager, lazy = data.folder(root), data.folder(root, memory=10)
    assert isinstance(lazy, data.ImageFolder) and not lazy.batched and lazy.shape == eager.shape
    np.testing.assert_array_equal(lazy.labels, eager.labels)
    for one, two in zip(eager, lazy, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    batches = [
        [(x.numpy(), y.tolist()) for x, y in data.DataLoader(d, 2, shuffle=True, num_workers=2)]
        for d in (eager, lazy)
    ]
    for (x, y), (x2, y2) in zip(*batches, strict=True):
        np.testing.assert_array_equal(x, x2)
        assert y == y2
    assert lazy.split(0.4)[1].labels.tolist() == eager.split(0.4)[1].labels.tolist()
    with pytest.raises(ArgumentError, match="flatten"):
        data.folder(root, memory=10, flatten=True)


def test_size_and_mode(animals):
    root, _ = animals
    assert data.folder(root, size=8).shape == (3, 8, 8)
    assert data.folder(root, size=(4, 7), mode="L").shape == (1, 4, 7)
    assert data.folder(root, mode="L", flatten=True).shape == (30,)
    with pytest.raises(ArgumentError, match="mode"):
        data.folder(root, mode="CMYK")


def test_different_sizes_are_named(animals):
    root, _ = animals
    save(root / "dogs" / "c.png", picture(7, 5))
    with pytest.raises(DataError, match=r"1.bmp' has 6 x 5 .*c.png' has 7 x 5.*size="):
        data.folder(root)
    assert data.folder(root, size=6).shape == (3, 6, 6)


def test_damaged_images_are_named(animals):
    root, _ = animals
    path = root / "dogs" / "a.png"
    whole = path.read_bytes()
    for content in (b"", b"not an image at all", whole[:60], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png"):
            data.folder(root)
    lazy = None
    path.write_bytes(whole)
    lazy = data.folder(root, memory=10)
    path.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"a\.png.* is damaged"):
        list(data.DataLoader(lazy, 5))


def test_folders_of_another_form(tmp_path, animals):
    with pytest.raises(DataError, match="no sub-folders"):
        data.folder(animals[0] / "dogs")
    (animals[0] / "birds").mkdir()
    with pytest.raises(DataError, match=r"class folder '.*birds' has no image"):
        data.folder(animals[0])
    with pytest.raises(FileError, match="no such file or folder"):
        data.folder(tmp_path / "nowhere")
    with pytest.raises(FileError):
        data.folder(animals[0] / "dogs" / "a.png")


def test_read_image_modes(tmp_path):
    rgb = picture()
    path = save(tmp_path / "rgb.png", rgb)
    np.testing.assert_array_equal(data.read_image(path), rgb.transpose(2, 0, 1))
    grey = data.read_image(path, mode="L")
    expected = rgb @ [0.299, 0.587, 0.114]
    assert grey.shape == (1, 6, 5) and np.abs(grey[0] - expected).max() <= 1
    flat = picture(channels=1)
    path = save(tmp_path / "grey.png", flat)
    np.testing.assert_array_equal(data.read_image(path), np.stack([flat] * 3))
    with pytest.raises(ArgumentError, match="mode"):
        data.read_image(path, mode="rgb")


def test_transparent_becomes_white(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    path = save(tmp_path / "a.png", rgba)
    out = data.read_image(path)
    assert out[:, 0, 0].tolist() == [255, 0, 0] and (out[:, 1, 1] == 255).all()


def test_sixteen_bits(tmp_path):
    deep = np.array([[0, 256], [32768, 65535]], np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    np.testing.assert_array_equal(data.read_image(path, mode="L")[0], [[0, 1], [128, 255]])


def test_camera_orientation(tmp_path):
    pixels = picture(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the stored rows are the picture's columns
    for split, name in enumerate(("x", "y")):
        save(tmp_path / "set" / name / f"{split}.png", pixels, exif=exif)
    image = data.read_image(tmp_path / "set" / "x" / "0.png")
    np.testing.assert_array_equal(image.transpose(1, 2, 0), np.rot90(pixels, -1))
    assert data.folder(tmp_path / "set").shape == (3, 6, 4)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "big.png", np.zeros((40, 40), np.uint8))
    for limit in (1000, 100):  # where Pillow warns, and where it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        _too_large(path)


def _too_large(path):
    with pytest.raises(DataError, match="too large an image"):
        data.read_image(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        data.read_image(tmp_path / "none.png")
    with pytest.raises(FileError):
        data.read_image(tmp_path)


def test_without_pillow_the_extra_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"chainrule\[plot\]"):
        data.read_image(Path("x.png"))

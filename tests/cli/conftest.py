from __future__ import annotations

import numpy as np
import pytest
from command import works

ROWS = """length,width,colour,kind
1.0,2.0,red,a
1.2,2.1,red,a
1.1,1.9,red,a
0.9,2.2,blue,a
1.0,2.0,red,a
3.0,5.0,blue,b
3.2,5.1,blue,b
3.1,4.9,green,b
2.9,5.2,blue,b
3.0,5.0,blue,b
"""


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    """Each test works in an empty folder, and without the user's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHAINRULE_DATA", raising=False)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "table.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path / "table.csv"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Small trained runs: of a table, a regression, images, images in colour."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "table.csv").write_text(ROWS, encoding="utf-8")
    make_pictures(folder / "pictures")
    for name, *arguments in (
        ("table", "csv", "--data", folder / "table.csv", "--epochs", 40, "--lr", 0.05),
        ("diabetes", "csv", "--data", "diabetes", "--epochs", 2),
        ("digits", "lenet", "--data", "digits", "--epochs", 4),
        ("colour", "resnet20", "--data", folder / "pictures", "--epochs", 1, "--batch-size", 8),
    ):
        works("train", *arguments, "--out", folder / name, "--quiet")
    return folder


def make_pictures(folder):
    """Twenty pictures of 16 x 12 pixels, red or green."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(20):
        pixels = generator.integers(0, 80, (16, 12, 3), np.uint8)
        pixels[..., number % 2] += 150
        place = folder / ("red", "green")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)


@pytest.fixture(scope="session")
def digit(tmp_path_factory):
    """Held-out digits as picture files, light on dark and dark on light; `(path, path, label)`."""
    from PIL import Image

    from chainrule import data

    _, test = data.load("digits")
    folder, found = tmp_path_factory.mktemp("digits"), []
    for number in range(12):
        image, label = test[number]
        pixels = (image[0] * 255).astype(np.uint8)
        paths = [folder / f"{number}-{kind}.png" for kind in ("dark", "light")]
        Image.fromarray(pixels).save(paths[0])
        Image.fromarray(255 - pixels).resize((56, 56)).save(paths[1])
        found.append((*paths, str(int(label))))
    return found

"""Images from files, and folders of them: one sub-folder for each class."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.data.dataset import Dataset, ImageDataset, resolve_indices
from chainrule.data.notices import notice
from chainrule.data.transforms.base import check_pair
from chainrule.errors import ArgumentError, ChainruleError, DataError, require
from chainrule.files import file_error

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)
IN_MEMORY = 1 << 29  # bytes of pixels up to which a folder is read at once
MODES = {"RGB": 3, "L": 1}


def _pillow(module: str) -> Any:
    return require(f"PIL.{module}", extra="plot", purpose="read images")


def read_image(
    path: str | os.PathLike[str],
    size: int | Sequence[int] | None = None,
    mode: str = "RGB",
) -> np.ndarray:
    """The pixels of an image file, uint8 (C, H, W).

    Arguments:
        path: the file, in any format that Pillow reads; the camera's orientation is followed.
        size: (height, width), or one number for both; the image's own size if None.
        mode: "RGB" (3 channels) or "L" (grey: 0.299 R + 0.587 G + 0.114 B). What is transparent
            becomes white.

    Raises:
        DataError: if it is no image, or damaged, or too large (Pillow's limit against bombs).
        FileError: if the file cannot be opened.
    """
    if mode not in MODES:
        raise ArgumentError(f"mode must be 'RGB' or 'L', but got {mode!r}.")
    module, operations = _pillow("Image"), _pillow("ImageOps")
    with _opened(path) as image:
        image = operations.exif_transpose(image)
        if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
            image = module.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = module.new("RGBA", image.size, "white")
            image = module.alpha_composite(white, image)
        image = image.convert(mode)
        if size is not None:
            height, width = check_pair("size", size)
            image = image.resize((width, height), module.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
    return pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Pillow's image of a file; whatever fails while it is used names the file."""
    module = _pillow("Image")
    name = os.fspath(path)
    try:
        with module.open(path) as image:
            # Pillow warns above this limit and raises above twice as much; a warning is too little.
            if image.width * image.height > (module.MAX_IMAGE_PIXELS or np.inf):
                raise DataError(f"{name!r} is too large an image: {image.width} x {image.height}.")
            yield image
    except ChainruleError:
        raise
    except module.UnidentifiedImageError as error:
        raise DataError(f"{name!r} is not an image that can be read, or is damaged.") from error
    except module.DecompressionBombError as error:
        raise DataError(f"{name!r} is too large an image: {error}") from error
    except Exception as error:  # each decoder of Pillow has its own ways to fail
        if isinstance(error, OSError) and error.errno is not None:
            raise file_error("read", path, error) from error
        raise DataError(f"the image {name!r} is damaged: {error}.") from error


class ImageFolder(Dataset):
    """Images of a folder that are read from disk each time; made by `folder` for large folders."""

    task = "classification"

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        size: tuple[int, int],
        mode: str,
        *,
        name: str,
        classes: Sequence[str],
    ):
        self.paths, self._labels, self.size, self.mode = list(paths), labels, size, mode
        self.name, self.classes = name, list(classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        at = resolve_indices(index, len(self), "the folder")
        if not isinstance(at, int):
            return self.batch(at)
        pixels = read_image(self.paths[at], self.size, self.mode)
        return np.divide(pixels, np.float32(255), dtype=np.float32), self._labels[at]

    @property
    def shape(self) -> tuple[int, ...]:
        return MODES[self.mode], *self.size

    @property
    def labels(self) -> np.ndarray:
        return self._labels


def folder(
    path: str | os.PathLike[str],
    size: int | Sequence[int] | None = None,
    mode: str = "RGB",
    *,
    flatten: bool = False,
    memory: int = IN_MEMORY,
) -> ImageDataset | ImageFolder:
    """A folder of images with one sub-folder for each class, whose name is the class's.

    Sub-folders are searched to any depth; names that begin with a dot are passed over; files that
    are no images by their ending are passed over with a notice. Classes are in the alphabet's
    order.

    Arguments:
        path: the folder.
        size: (height, width), or one number for both, to which all images are brought. None: the
            images must all have one size.
        mode: "RGB" or "L" (grey).
        flatten: images as vectors.
        memory: up to how many bytes of pixels the images are read at once and kept; a larger folder
            is read image by image each time (and cannot be flattened).

    Returns:
        A data set of (image float32 (C, H, W) in [0, 1], label).

    Raises:
        DataError: if there is no class, a class without an image, an image that is damaged, or
            images of different sizes and no `size`; names it.
        FileError: if the folder cannot be read.
    """
    if mode not in MODES:
        raise ArgumentError(f"mode must be 'RGB' or 'L', but got {mode!r}.")
    root = Path(path)
    paths, labels, classes = _find_images(root)
    shape = _common_size(paths) if size is None else check_pair("size", size)
    name = root.resolve().name
    needed = len(paths) * MODES[mode] * shape[0] * shape[1]
    if needed > memory:
        if flatten:
            raise ArgumentError(
                f"the images of {os.fspath(path)!r} take {needed:,} bytes, more than "
                f"memory={memory:,}, and are read one by one, which flatten=True does not allow; "
                "use a smaller size, or nn.Flatten in the model."
            )
        return ImageFolder(paths, labels, shape, mode, name=name, classes=classes)
    images = np.stack([read_image(file, shape, mode) for file in paths])
    return ImageDataset(images, labels, name=name, classes=classes, flatten=flatten)


def _find_images(root: Path) -> tuple[list[Path], np.ndarray, list[str]]:
    """All images, their class numbers, and the classes."""
    try:
        entries = sorted(e for e in root.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise file_error("read the folder", root, error) from error
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        raise DataError(
            f"the folder '{root}' has no sub-folders: a folder of images needs one for each class, "
            "such as 'cats/1.png' and 'dogs/1.png'."
        )
    paths, labels, others = [], [], [e for e in entries if not e.is_dir()]
    for label, folder_ in enumerate(folders):
        found = sorted(
            Path(where, file)
            for where, _, files in os.walk(folder_)
            for file in files
            if not file.startswith(".")
        )
        images = [file for file in found if file.suffix.lower() in SUFFIXES]
        others += [file for file in found if file.suffix.lower() not in SUFFIXES]
        if not images:
            raise DataError(
                f"the class folder '{folder_}' has no image in it ({', '.join(sorted(SUFFIXES))}); "
                "add some, or remove the folder."
            )
        paths += images
        labels += [label] * len(images)
    if others:
        many = f"{len(others)} files that are" if len(others) > 1 else "a file that is"
        notice(f"{root}: passed over {many} no image by name, such as '{others[0]}'.")
    return paths, np.array(labels, np.int64), [folder_.name for folder_ in folders]


def _common_size(paths: Sequence[Path]) -> tuple[int, int]:
    """(height, width) of all images, from their headers."""
    first: tuple[int, int] | None = None
    for path in paths:
        with _opened(path) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # the camera lay on its side
                width, height = height, width
        if first is None:
            first = height, width
        elif (height, width) != first:
            raise DataError(
                f"the images have different sizes: '{paths[0]}' has {first[0]} x {first[1]} "
                f"pixels, '{path}' has {height} x {width}. Pass size=(height, width) to bring them "
                "to one."
            )
    assert first is not None
    return first

"""Transforms and augmentation of images, in NumPy, whole batches at a time.

Images are arrays (C, H, W) or batches (N, C, H, W). A transform is used in one of three ways:

- `dataset.with_transform(Compose([RandomCrop(28, padding=2), RandomHorizontalFlip()]))`: the random
  numbers of a sample depend on the loader's seed, the epoch and the sample's index, and on nothing
  else;
- called on images in the `__getitem__` of a data set of one's own: the same;
- called by hand: image after image takes the next numbers of the transform's `seed`.

Names, arguments, defaults and formulas are torchvision's where it has them.
"""

from chainrule.data.transforms.affine import RandomAffine, RandomRotation, RandomScale, affine
from chainrule.data.transforms.base import (
    Compose,
    Lambda,
    RandomTransform,
    Transform,
    as_transform,
)
from chainrule.data.transforms.geometry import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
    RandomVerticalFlip,
)
from chainrule.data.transforms.mixup import Mixup
from chainrule.data.transforms.pixels import GaussianNoise, Normalize, RandomErasing, ToFloat
from chainrule.data.transforms.resize import Resize, resize

__all__ = [
    "CenterCrop",
    "Compose",
    "GaussianNoise",
    "Lambda",
    "Mixup",
    "Normalize",
    "Pad",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomScale",
    "RandomShift",
    "RandomTransform",
    "RandomVerticalFlip",
    "Resize",
    "ToFloat",
    "Transform",
    "affine",
    "as_transform",
    "resize",
]

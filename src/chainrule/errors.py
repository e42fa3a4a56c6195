"""Every error chainrule raises, and the words it uses.

Each class derives from `ChainruleError` and from the builtin it refines, so that both
`except ChainruleError` and `except ValueError` do what a reader expects. A message is one
paragraph: what was passed, what was expected, where, and the fix.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np


class ChainruleError(Exception):
    """Base of all errors raised on purpose.

    `nn.Module.__call__` notes the module in which the error arose (`layer`) and the outermost
    module that was called (`root`), so that the message can name the layer by its path, and
    `graph.apply` notes the user's own line (`line`).
    """

    layer: Any = None
    root: Any = None
    line: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        if self.layer is not None:
            message = f"in layer {self._layer_path()}: {message}"
        if self.line is not None:
            message = f"{message} [{self.line}]"
        return message

    def _layer_path(self) -> str:
        kind = type(self.layer).__name__
        if self.root is not None and self.root is not self.layer:
            for name, module in self.root.named_modules():
                if module is self.layer:
                    return f"'{name}' ({kind})"
        return kind


class ShapeError(ChainruleError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(ChainruleError, TypeError):
    """A dtype that does not exist here or does not fit the operation."""


class DeviceError(ChainruleError, ValueError):
    """A device other than the CPU."""


class ArgumentError(ChainruleError, ValueError):
    """An argument outside its domain."""


class ArgumentTypeError(ChainruleError, TypeError):
    """An argument of the wrong type."""


class ModuleError(ChainruleError, AttributeError):
    """An attribute of a module that is not there, or cannot be set in this way."""


class RangeError(ArgumentError, OverflowError):
    """A number outside the range of a dtype."""


class IndexingError(ChainruleError, IndexError):
    """An index outside its axis, or of a kind that cannot index."""


class GradError(ChainruleError, RuntimeError):
    """A derivative that was asked for and cannot be had."""


class GraphFreedError(GradError):
    """A graph used a second time after its saved values were let go."""


class TraceError(ChainruleError, RuntimeError):
    """A traced tensor, which has no numbers yet, used where numbers are needed."""


class ExchangeError(ChainruleError, BufferError):
    """An array that cannot be shared with another library in the way that was asked for."""


class NonFiniteError(ChainruleError, ArithmeticError):
    """A NaN or an infinity, traced to the operation that made it."""


class UnknownNameError(ChainruleError, ValueError):
    """A name that is not in a list of names; the message offers the nearest ones."""


class DataError(ChainruleError, ValueError):
    """Data that is missing, damaged, or not of the form that was asked for."""


class CheckpointError(ChainruleError, ValueError):
    """A file of weights or of a run's state that cannot be used."""


class StateDictError(CheckpointError, RuntimeError):
    """A `state_dict` whose keys or shapes are not those of the model."""


class FileError(ChainruleError, OSError):
    """A file or folder that cannot be read or written."""

    # OSError.__str__ formats (errno, strerror); ours is a sentence.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DownloadError(FileError):
    """A file that could not be fetched, or came with the wrong checksum."""


class MissingExtraError(ChainruleError, ImportError):
    """An optional package that is not installed; the message says what to install."""


class ChainruleWarning(UserWarning):
    """Something legal that is almost certainly not meant."""


def unknown_name(kind: str, name: object, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for `name`, which is none of the `known` names of this `kind`.

    >>> str(unknown_name("recipe", "lenett", ["mlp", "lenet"]))
    "unknown recipe 'lenett'; did you mean 'lenet'? Known: lenet, mlp."
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    guess = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    tail = f" {hint}" if hint else ""
    return UnknownNameError(f"unknown {kind} {name!r}{guess} Known: {', '.join(names)}.{tail}")


def require(module: str, *, extra: str | None, purpose: str = "") -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Arguments:
        module: the module to import, such as `"matplotlib"`.
        extra: the extra of chainrule that installs it, such as `"plot"`; None for a package that
            comes with chainrule and can still be missing, after an installation without it.
        purpose: what it is needed for, completing "is needed to ...".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        why = f"to {purpose}" if purpose else "here"
        package = module.split(".")[0]
        wanted = package if extra is None else f"'chainrule[{extra}]'"
        raise MissingExtraError(
            f"the package {package!r} is needed {why} and is not installed; install it with: "
            f"pip install {wanted}"
        ) from error


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep


@functools.cache
def _room(filename: str) -> str:
    """Whose a file is: "ours", "passed by" (NumPy, the import machinery), or "the user's".

    "ours alone" is the command line, behind which nothing is the user's.
    """
    path = os.path.abspath(filename)
    if path.startswith(_PACKAGE):
        return "ours alone" if path.startswith(os.path.join(_PACKAGE, "cli", "")) else "ours"
    passed = filename.startswith("<frozen") or path.startswith(_NUMPY)
    return "passed by" if passed else "the user's"


def users_line() -> str | None:
    """`file:line` of the innermost frame on the stack that is not chainrule's own, or None.

    None too behind the command line, where no line is the user's.
    """
    frame = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        room = _room(filename)
        if room == "ours alone":
            return None
        if room == "the user's":
            return f"{filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def warn_at_users_line(message: str) -> None:
    """Warn at the user's own line."""
    filename, _, line = (users_line() or "chainrule:1").rpartition(":")
    warnings.warn_explicit(message, ChainruleWarning, filename, int(line), registry={})

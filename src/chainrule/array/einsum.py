"""Einstein's summation: products of tensors with named axes, summed over the names not kept.

The subscripts are read into labels; repeated labels of one tensor become diagonals; then two
tensors at a time are contracted, each time by one batched matrix product (or by a product of
elements where nothing is summed). All of it is array functions, so it differentiates.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.array._core import alike, distinct
from chainrule.array.elementwise import multiply
from chainrule.array.linear import diagonal
from chainrule.array.manipulation import permute_dims, reshape
from chainrule.array.reductions import sum
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.primitives import linalg as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Labels = tuple[str, ...]
"""One for each axis: a letter, or "...1" for the last axis under an ellipsis, "...2" before it."""
Term = tuple[Any, Labels]


def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """The sum over all axes whose letters are not in the output, of the product of the operands.

    >>> import chainrule as cr
    >>> cr.einsum("ij,jk->ik", cr.ones((2, 3)), cr.ones((3, 4))).shape
    (2, 4)

    Arguments:
        subscripts: a letter for each axis, operands parted by commas; after `->` the axes of the
            result. Without `->`, the letters that occur once, in alphabetical order. `...` stands
            for any number of axes, which broadcast. A letter twice in one operand: its diagonal.
        operands: tensors; axes of one letter are equally long, or of length 1.

    Raises:
        ArgumentError: for subscripts that cannot be read. ShapeError: for axes that do not fit.
    """
    if not isinstance(subscripts, str):
        raise DTypeError(
            f"einsum takes its subscripts first, such as 'ij,jk->ik', but got "
            f"{type(subscripts).__name__}."
        )
    xs = alike(operands, "einsum")
    inputs, output = _read(subscripts, [x.ndim for x in xs])
    terms = [_diagonals(x, labels, subscripts) for x, labels in zip(xs, inputs, strict=True)]
    terms = _without_broadcast_axes(terms, subscripts)
    for chosen in _path(terms, output):
        group = [terms.pop(i) for i in sorted(chosen, reverse=True)]
        needed = set(output).union(*(labels for _, labels in terms))
        terms.append(_contract(group[::-1], needed))
    return distinct(_arranged(terms[0], output), operands[0])


# --- reading the subscripts -----------------------------------------------------------------------


def _read(subscripts: str, ndims: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand, and of the result."""
    text = "".join(subscripts.split())
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ArgumentError(
            f"einsum {subscripts!r} names {len(terms)} operand(s), but got {len(ndims)}."
        )
    inputs = [_labels(t, n, subscripts) for t, n in zip(terms, ndims, strict=True)]
    count = Counter(label for labels in inputs for label in labels)
    under = max((len(labels) for labels in map(_ellipsis, inputs)), default=0)
    if not arrow:
        once = sorted(label for label, n in count.items() if n == 1 and len(label) == 1)
        return inputs, (*_ellipsis_labels(under), *once)
    if under and "..." not in right:
        raise ArgumentError(
            f"einsum {subscripts!r}: '...' stands for {under} axes of the operands and is missing "
            "in the result; write it after '->', or name the axes that you want to sum over."
        )
    output = _labels(right, len(right.replace("...", "")) + under, subscripts)
    for label in output:
        if output.count(label) > 1 or label not in count:
            raise ArgumentError(
                f"einsum {subscripts!r}: each letter of the result occurs in it once, and in some "
                f"operand; {label!r} does not."
            )
    return inputs, output


def _labels(term: str, ndim: int, subscripts: str) -> Labels:
    """The labels of the `ndim` axes of one operand."""
    before, dots, after = term.partition("...")
    letters = before + after
    if not all(c in string.ascii_letters for c in letters):
        raise ArgumentError(
            f"einsum {subscripts!r}: {term!r} is not made of letters and at most one '...'."
        )
    under = ndim - len(letters)
    if under < 0 or (under and not dots):
        raise ShapeError(
            f"einsum {subscripts!r}: {term!r} names {len(letters)} axes of an operand that has "
            f"{ndim}."
        )
    return (*before, *_ellipsis_labels(under), *after)


def _ellipsis_labels(n: int) -> Labels:
    """Labels for the axes that `...` stands for, which are aligned from the right."""
    return tuple([f"...{i}" for i in range(n, 0, -1)])


def _ellipsis(labels: Labels) -> Labels:
    return tuple([label for label in labels if len(label) > 1])


# --- preparing the operands -----------------------------------------------------------------------


def _diagonals(x: Any, labels: Labels, subscripts: str) -> Term:
    """The operand with each label once: of axes with the same label the diagonal is taken."""
    while len(set(labels)) != len(labels):
        label = next(a for a in labels if labels.count(a) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        if x.shape[first] != x.shape[second]:
            raise ShapeError(
                f"einsum {subscripts!r}: axes {first} and {second} of an operand of shape "
                f"{x.shape} are both {label!r} and must be equally long."
            )
        x = diagonal(x, axis1=first, axis2=second)
        rest = [a for i, a in enumerate(labels) if i not in (first, second)]
        labels = (*rest, label)
    return x, labels


def _without_broadcast_axes(terms: list[Term], subscripts: str) -> list[Term]:
    """Drop axes of length 1 that stand for longer ones: the product repeats them by itself."""
    sizes: dict[str, int] = {}
    for x, labels in terms:
        for label, n in zip(labels, x.shape, strict=True):
            known = sizes.setdefault(label, n)
            if 1 not in (known, n) and known != n:
                what = f"axis {label!r}" if len(label) == 1 else "an axis under '...'"
                raise ShapeError(
                    f"einsum {subscripts!r}: {what} has length {known} in one operand and {n} in "
                    "another; they must be equal."
                )
            sizes[label] = n if known == 1 else known
    slim = []
    for x, labels in terms:
        kept = [i for i, a in enumerate(labels) if x.shape[i] == sizes[a]]
        shape = tuple([x.shape[i] for i in kept])
        slim.append((reshape(x, shape), tuple([labels[i] for i in kept])))
    return slim


def _path(terms: list[Term], output: Labels) -> list[tuple[int, ...]]:
    """Which terms to contract in which order; each result goes to the end of the list."""
    if len(terms) < 3:
        return [tuple(range(len(terms)))]
    names = dict.fromkeys(label for _, labels in terms for label in labels)
    if len(names) > len(string.ascii_letters):
        return [tuple(range(len(terms)))]
    letters = dict(zip(names, string.ascii_letters, strict=False))
    spelled = ["".join(letters[a] for a in labels) for _, labels in terms]
    text = ",".join(spelled) + "->" + "".join(letters[a] for a in output)
    shapes = [np.broadcast_to(np.float64(0), x.shape) for x, _ in terms]
    return np.einsum_path(text, *shapes, optimize="greedy")[0][1:]


# --- contracting ----------------------------------------------------------------------------------


def _contract(group: list[Term], needed: set[str]) -> Term:
    """The product of several terms, summed over the labels that nothing after it needs."""
    result = group[0]
    for i, other in enumerate(group[1:], start=1):
        later = needed.union(*(labels for _, labels in group[i + 1 :]))
        result = _pair(result, other, later)
    return _summed(result, needed)


def _summed(term: Term, needed: Iterable[str]) -> Term:
    """The sum of a term over the labels that are not needed."""
    x, labels = term
    axes = tuple([i for i, a in enumerate(labels) if a not in needed])
    if not axes:
        return term
    kept = tuple([a for a in labels if a in needed])
    return sum(x, axis=axes, dtype=x.dtype), kept


def _pair(first: Term, second: Term, needed: set[str]) -> Term:
    """The product of two terms, as one matrix product for each index that both keep."""
    x, in_x = _summed(first, needed.union(second[1]))
    y, in_y = _summed(second, needed.union(first[1]))
    both = [a for a in in_x if a in in_y]
    batch = [a for a in both if a in needed]
    inner = [a for a in both if a not in needed]
    left = [a for a in in_x if a not in in_y]
    right = [a for a in in_y if a not in in_x]
    size = {**dict(zip(in_x, x.shape, strict=True)), **dict(zip(in_y, y.shape, strict=True))}
    b, m, k, n = (math.prod(size[a] for a in part) for part in (batch, left, inner, right))
    lead = (b,) if batch else ()
    x = reshape(_arranged((x, in_x), (*batch, *left, *inner)), (*lead, m, k))
    y = reshape(_arranged((y, in_y), (*batch, *inner, *right)), (*lead, k, n))
    z = p.matmul(x, y) if inner else multiply(x, y)
    labels = (*batch, *left, *right)
    return reshape(z, tuple([size[a] for a in labels])), labels


def _arranged(term: Term, labels: Sequence[str]) -> Any:
    """A term's tensor with its axes in the order of `labels`."""
    x, have = term
    return permute_dims(x, tuple([have.index(a) for a in labels]))

"""Embedding layers: a learned vector for each word of a vocabulary."""

from __future__ import annotations

from typing import Any, Self

from chainrule import array as xp
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn import functional as F
from chainrule.nn import init
from chainrule.nn.functional.embedding import check_dense
from chainrule.nn.linear import check_sizes, empty_parameter
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.tensor import Tensor

__all__ = ["Embedding", "EmbeddingBag"]


def _pretrained(embeddings: Any) -> Tensor:
    table = xp.asarray(embeddings)
    if table.ndim != 2:
        raise ShapeError(
            f"from_pretrained takes (num_embeddings, embedding_dim), got {table.shape}."
        )
    return table


class _Table(Module):
    """A table of vectors, drawn from N(0, 1); the row of the padding index is 0."""

    weight: Parameter

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, weight: Any,
        freeze: bool, device: Any, dtype: Any,
    ):  # fmt: skip
        super().__init__()
        check_sizes(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ArgumentError(
                    f"padding_idx {padding_idx} is not one of the {num_embeddings} embeddings."
                )
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        shape = (num_embeddings, embedding_dim)
        if weight is None:
            self.weight = empty_parameter(shape, dtype, device)
            self.weight.requires_grad_(not freeze)
            self.reset_parameters()
        elif weight.shape != shape:
            raise ShapeError(f"the weight of {shape} embeddings has shape {weight.shape}.")
        else:
            self.weight = Parameter(weight, not freeze)

    def reset_parameters(self) -> None:
        """Draw the table anew from N(0, 1), with zeros for the padding index."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def _options(self, **defaults: Any) -> str:
        """Those arguments that are not at their defaults, in words."""
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}={value!r}")
        return ", ".join(parts)


class Embedding(_Table):
    """z[i] = weight[input[i]].

    Shapes: integers (...) to (..., embedding_dim).

    Arguments:
        num_embeddings: the size of the vocabulary; indices are 0 to num_embeddings - 1.
        embedding_dim: the length of each vector.
        padding_idx: the vector at this index begins as 0 and gets no gradient.
        max_norm: longer vectors are shortened to it when they are looked up, in the table.
        norm_type: the p of that norm. Default: 2.
        scale_grad_by_freq: divide gradients by how often their index occurs in the input.
        sparse: must be False: gradients are dense.

    Attributes:
        weight: (num_embeddings, embedding_dim), from N(0, 1).
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, _weight: Any = None, _freeze: bool = False, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        check_dense(type(self).__name__, sparse)
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, _weight, _freeze, device, dtype
        )
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:  # fmt: skip
        """An embedding with the vectors given, which are not trained unless freeze=False."""
        table = _pretrained(embeddings)
        return cls(
            *table.shape, padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq, sparse=sparse, _weight=table, _freeze=freeze,
        )  # fmt: skip

    def forward(self, input: Any) -> Tensor:
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.sparse,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return self._options(
            padding_idx=None, max_norm=None, norm_type=2, scale_grad_by_freq=False, sparse=False
        )


class EmbeddingBag(_Table):
    """The sum, mean or maximum of the vectors of each bag of indices.

    Shapes: (B, L), each row a bag, or (n,) with offsets (B,); to (B, embedding_dim).

    Arguments:
        mode: "sum", "mean" (default) or "max".
        include_last_offset: the last offset is the end of the last bag.
        padding_idx: indices equal to it are left out of their bags.
        The others as `Embedding`.

    Attributes:
        weight: (num_embeddings, embedding_dim), from N(0, 1).
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
        sparse: bool = False, _weight: Any = None, include_last_offset: bool = False,
        padding_idx: int | None = None, device: Any = None, dtype: Any = None,
        _freeze: bool = False,
    ):  # fmt: skip
        check_dense(type(self).__name__, sparse)
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, _weight, _freeze, device, dtype
        )
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        self.mode, self.include_last_offset = mode, include_last_offset

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
        sparse: bool = False, include_last_offset: bool = False, padding_idx: int | None = None,
    ) -> Self:  # fmt: skip
        """A bag of embeddings with the vectors given, not trained unless freeze=False."""
        table = _pretrained(embeddings)
        return cls(
            *table.shape, max_norm=max_norm, norm_type=norm_type, mode=mode, sparse=sparse,
            scale_grad_by_freq=scale_grad_by_freq, include_last_offset=include_last_offset,
            padding_idx=padding_idx, _weight=table, _freeze=freeze,
        )  # fmt: skip

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq,
            self.mode, self.sparse, per_sample_weights, self.include_last_offset,
            self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = self._options(max_norm=None, norm_type=2, scale_grad_by_freq=False)
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{text}, mode={self.mode!r}{padding}"

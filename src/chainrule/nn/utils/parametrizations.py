"""Weight normalisation and spectral normalisation, as parametrisations."""

from __future__ import annotations

from typing import Any

from chainrule import array as xp
from chainrule import random
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError
from chainrule.nn.functional.distance import normalize
from chainrule.nn.module import Module
from chainrule.nn.utils.parametrize import register_parametrization


def _norm_except(x: Any, dim: int) -> Any:
    """The length of each slice along `dim` (of all of x for -1), with axes of length 1 kept."""
    axes = tuple(a for a in range(x.ndim) if a != dim)
    return xp.sqrt(xp.sum(x * x, axis=axes, keepdims=True))


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, g: Any, v: Any) -> Any:
        return v * (g / _norm_except(v, self.dim))

    def right_inverse(self, weight: Any) -> tuple[Any, Any]:
        g = _norm_except(weight, self.dim)
        return (g.reshape(()) if self.dim == -1 else g), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """w = g v / |v|: the length g and direction v of a weight trained apart; returns the module.

    The state then holds `parametrizations.weight.original0` (g) and `.original1` (v).
    Source: Salimans and Kingma, "Weight normalization", NeurIPS 2016.

    Arguments:
        module: the layer.
        name: its parameter.
        dim: |v| is taken for each slice along this axis (0: for each output); None: for all of v.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    def __init__(self, weight: Any, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise ArgumentError(f"dim {dim} is no axis of a weight of shape {weight.shape}.")
        if n_power_iterations < 1:
            raise ArgumentError(f"n_power_iterations must be at least 1, got {n_power_iterations}.")
        self.dim = dim % weight.ndim
        self.n_power_iterations = n_power_iterations
        self.eps = eps
        if weight.ndim > 1:
            matrix = self._as_matrix(weight.detach())
            for buffer, n in zip(("_u", "_v"), matrix.shape, strict=True):
                start = random.normal((n,), dtype=weight.dtype)
                self.register_buffer(buffer, normalize(start, dim=0, eps=eps))
            self._iterate(matrix, 15)

    def _as_matrix(self, weight: Any) -> Any:
        return xp.flatten(xp.moveaxis(weight, self.dim, 0), 1)

    def _iterate(self, matrix: Any, times: int) -> None:
        """The power method: u and v approach the first left and right singular vectors."""
        with no_grad():
            for _ in range(times):
                self._u.copy_(normalize(matrix @ self._v, dim=0, eps=self.eps))
                self._v.copy_(normalize(matrix.T @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Any) -> Any:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = self._as_matrix(weight)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        return weight / (self._u.detach() @ (matrix @ self._v.detach()))

    def right_inverse(self, value: Any) -> Any:
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """w / sigma(w): a weight divided by its largest singular value; returns the module.

    sigma is u^T w v, with u and v (buffers) following the singular vectors by the power method, one
    step for each reading in training mode, so that a layer's Lipschitz constant stays about 1.
    Source: Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.

    Arguments:
        module: the layer.
        name: its parameter.
        n_power_iterations: steps of the power method for each reading.
        eps: keeps lengths away from 0.
        dim: the axis of the outputs; None: 1 for transposed convolutions, else 0.
    """
    weight = getattr(module, name)
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    return register_parametrization(
        module, name, _SpectralNorm(weight, n_power_iterations, dim, eps)
    )

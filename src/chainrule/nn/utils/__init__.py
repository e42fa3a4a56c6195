"""Tools around modules: folding batch norm, parametrised weights, vectors of them, clipping."""

from chainrule.nn.utils import parametrizations as parametrizations
from chainrule.nn.utils import parametrize as parametrize
from chainrule.nn.utils import rnn as rnn
from chainrule.nn.utils.fusion import (
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)
from chainrule.nn.utils.stateless import functional_call
from chainrule.nn.utils.vectors import parameters_to_vector, vector_to_parameters
from chainrule.optim.clipping import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "functional_call",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]

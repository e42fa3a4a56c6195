"""The workloads in JAX: pure functions of a dictionary of weights, jitted, buffers donated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from chainrule.bench.workloads import Workload
from chainrule.errors import require

jax: Any = require("jax", extra="", purpose="run this contestant")
jnp, lax, nn = jax.numpy, jax.lax, jax.nn
Weights = dict[str, Any]


def dense(w: Weights, name: str, x: Any) -> Any:
    z = x @ w[f"{name}.weight"].T
    return z + w[f"{name}.bias"] if f"{name}.bias" in w else z


def conv(w: Weights, name: str, x: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    z = lax.conv_general_dilated(
        x, w[f"{name}.weight"], (stride, stride), [(padding, padding)] * 2,
        dimension_numbers=("NCHW", "OIHW", "NCHW"), feature_group_count=groups,
    )  # fmt: skip
    return z + w[f"{name}.bias"][:, None, None] if f"{name}.bias" in w else z


def max_pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def batch_norm(w: Weights, new: Weights, name: str, x: Any) -> Any:
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    n = x.size // x.shape[1]
    for key, value in (("running_mean", mean), ("running_var", var * n / (n - 1))):
        new[f"{name}.{key}"] = 0.9 * w[f"{name}.{key}"] + 0.1 * value
    scale = w[f"{name}.weight"] * lax.rsqrt(var + 1e-5)
    shift = w[f"{name}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def layer_norm(w: Weights, name: str, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    z = (x - mean) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    return z * w[f"{name}.weight"] + w[f"{name}.bias"]


def mlp(activation: Any) -> Callable[..., Any]:
    def forward(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
        return dense(w, "4", activation(dense(w, "2", activation(dense(w, "0", x)))))

    return forward


def lenet(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
    x = max_pool(nn.relu(conv(w, "features.0", x, padding=2)))
    x = max_pool(nn.relu(conv(w, "features.3", x)))
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(dense(w, "classifier.1", x))
    return dense(w, "classifier.5", nn.relu(dense(w, "classifier.3", x)))


def resnet20(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
    x = nn.relu(batch_norm(w, new, "bn", conv(w, "conv", x, padding=1)))
    for stage in range(3):
        for block in range(3):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            z = nn.relu(
                batch_norm(w, new, f"{name}.bn1", conv(w, f"{name}.conv1", x, stride, padding=1))
            )
            z = batch_norm(w, new, f"{name}.bn2", conv(w, f"{name}.conv2", z, padding=1))
            if stride == 2:
                extra = x.shape[1] // 2
                x = jnp.pad(x[:, :, ::2, ::2], ((0, 0), (extra, extra), (0, 0), (0, 0)))
            x = nn.relu(x + z)
    return dense(w, "fc", x.mean((2, 3)))


def recurrent(cell: Callable[..., Any], states: int) -> Callable[..., Any]:
    def forward(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
        hidden = workload.sizes["hidden"]
        projected = x.swapaxes(0, 1) @ w["rnn.weight_ih_l0"].T + w["rnn.bias_ih_l0"]
        start = (jnp.zeros((x.shape[0], hidden), x.dtype),) * states
        last, _ = lax.scan(lambda s, p: (cell(w, s, p), None), start, projected)
        return dense(w, "head", last[0])

    return forward


def lstm_cell(w: Weights, state: Any, projected: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(projected + h @ w["rnn.weight_hh_l0"].T + w["rnn.bias_hh_l0"], 4, -1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


def gru_cell(w: Weights, state: Any, projected: Any) -> Any:
    (h,) = state
    xr, xz, xn = jnp.split(projected, 3, -1)
    hr, hz, hn = jnp.split(h @ w["rnn.weight_hh_l0"].T + w["rnn.bias_hh_l0"], 3, -1)
    z = nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + nn.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def attend(qkv: Any, heads: int) -> Any:
    """Causal attention of (n, t, 3 d) queries, keys and values; (n, heads, t, d / heads)."""
    n, t, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = jnp.moveaxis(qkv.reshape(n, t, 3, heads, d // heads), 2, 0)
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / (d // heads) ** 0.5
    p = nn.softmax(jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -jnp.inf), axis=-1)
    return jnp.einsum("nhqk,nkhd->nhqd", p, v)


def attention(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
    return attend(dense(w, "qkv", x), workload.sizes["heads"])


def mlp_deep(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
    depth = workload.sizes["depth"]
    for i in range(depth):
        x = nn.relu(dense(w, f"{2 * i}", x))
    return dense(w, f"{2 * depth}", x)


def gpt(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
    heads = workload.sizes["heads"]
    z = w["token.weight"][x] + w["position.weight"][: x.shape[1]]
    n, t, d = z.shape
    for i in range(workload.sizes["depth"]):
        name = f"blocks.{i}"
        qkv = dense(w, f"{name}.qkv", layer_norm(w, f"{name}.norm1", z))
        a = attend(qkv, heads).swapaxes(1, 2).reshape(n, t, d)
        z = z + dense(w, f"{name}.out", a)
        up = dense(w, f"{name}.up", layer_norm(w, f"{name}.norm2", z))
        z = z + dense(w, f"{name}.down", nn.gelu(up, approximate=False))
    return dense(w, "head", layer_norm(w, "norm", z))


def mobilenet(w: Weights, new: Weights, x: Any, workload: Workload) -> Any:
    c = workload.sizes["channels"]
    x = nn.relu(batch_norm(w, new, "1", conv(w, "0", x, padding=1, groups=c)))
    return nn.relu(batch_norm(w, new, "4", conv(w, "3", x)))


MODELS: dict[str, Callable[..., Any]] = {
    "mlp_digits": mlp(nn.sigmoid), "mlp_wide": mlp(nn.relu), "lenet": lenet, "resnet20": resnet20,
    "lstm": recurrent(lstm_cell, 2), "gru": recurrent(gru_cell, 1), "gpt": gpt,
    "mobilenet": mobilenet, "attention": attention, "mlp_deep": mlp_deep,
}  # fmt: skip


def loss_of(trained: Weights, fixed: Weights, batch: Any, workload: Workload) -> Any:
    """The loss, and the buffers as the step leaves them."""
    new: Weights = {}
    z = MODELS[workload.model]({**trained, **fixed}, new, batch[0], workload)
    if not workload.classes:
        return (z * z).mean(), new
    z, labels = z.reshape(-1, z.shape[-1]), batch[1].reshape(-1)
    chosen = jnp.take_along_axis(nn.log_softmax(z), labels[:, None], 1)
    return -chosen.mean(), new


def update(workload: Workload, w: Weights, g: Weights, state: Any) -> tuple[Weights, Any]:
    """One step of SGD with momentum, Adam or AdamW."""
    if workload.optimizer is None:
        return w, g  # kept, so that the gradients are not dead code
    name, settings = workload.optimizer
    lr, tree = settings["lr"], jax.tree.map
    if name == "sgd":
        momentum = settings.get("momentum", 0)
        v = tree(lambda v, g: momentum * v + g, state, g) if momentum else state
        return tree(lambda w, g: w - lr * g, w, v if momentum else g), v
    t, m, v = state
    t = t + 1
    m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    decay = lr * 0.01 if name == "adamw" else 0.0
    # 1 - beta^t, without the cancellation that float32 suffers at small t.
    first, second = (-jnp.expm1(t * math.log(beta)) for beta in (0.9, 0.999))
    scale, root = lr / first, jnp.sqrt(second)
    w = tree(lambda w, m, v: w * (1 - decay) - scale * m / (jnp.sqrt(v) / root + 1e-8), w, m, v)
    return w, (t, m, v)


def step_of(workload: Workload, weights: Any, dtype: str, variant: str) -> Callable[[], Any]:
    """A function that takes one step, waits for it, and returns the loss (or the result)."""
    batch = [jnp.asarray(x) for x in workload.batch(dtype)]
    if workload.model == "gemm":
        left, right = workload.layout == "TN", workload.layout == "NT"
        product = jax.jit(lambda a, b: (a.T if left else a) @ (b.T if right else b))
        return lambda: product(*batch).block_until_ready()
    trained, fixed = _divided(weights)
    if not workload.trains:
        forward = jax.jit(lambda w, x: MODELS[workload.model](w, {}, x, workload))
        return lambda: forward(trained, batch[0]).block_until_ready()
    step, _ = _training(workload, trained, fixed)
    return lambda: step(batch)


def trainer_of(workload: Workload, weights: Any, variant: str) -> tuple[Any, Any]:
    """`train(x, labels)` takes a step on a batch of NumPy arrays, `predict(x)` gives the scores."""
    step, held = _training(workload, *_divided(weights))
    forward = jax.jit(lambda w, x: MODELS[workload.model](w, {}, x, workload))
    return (
        lambda x, labels: step((jnp.asarray(x), jnp.asarray(labels))),
        lambda x: jax.device_get(forward({**held[0], **held[2]}, jnp.asarray(x))),
    )


def _divided(weights: Any) -> tuple[Weights, Weights]:
    """What is trained, and running statistics."""
    buffers = {k for k in weights if "running" in k or "num_batches" in k}
    trained = {k: jnp.asarray(v) for k, v in weights.items() if k not in buffers}
    return trained, {k: jnp.asarray(weights[k]) for k in buffers if "num_batches" not in k}


def _training(workload: Workload, w: Weights, fixed: Weights) -> tuple[Callable[..., Any], Any]:
    """A function of a batch that takes one step, and where it keeps weights and state."""
    zeros = jax.tree.map(jnp.zeros_like, w)
    adam = workload.optimizer is not None and workload.optimizer[0] != "sgd"
    held = [w, (jnp.zeros(()), zeros, jax.tree.map(jnp.zeros_like, w)) if adam else zeros, fixed]

    def training_step(w: Weights, state: Any, fixed: Weights, batch: Any) -> Any:
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, new), g = gradient(w, fixed, batch, workload)
        w, state = update(workload, w, g, state)
        return w, state, {**fixed, **new}, loss

    jitted = jax.jit(training_step, donate_argnums=(0, 1, 2))

    def step(batch: Any) -> Any:
        *held[:], loss = jitted(*held, batch)
        return loss.block_until_ready()

    return step, held

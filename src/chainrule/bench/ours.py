"""The workloads in chainrule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainrule as cr
from chainrule import models, nn, optim
from chainrule.bench.workloads import Workload

F = nn.functional


class Recurrent(nn.Module):
    """A recurrent layer over a sequence, and a dense one on its last state."""

    def __init__(self, layer: Any, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.rnn = layer(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        z, _ = self.rnn(x)
        return self.head(z[:, -1])


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape((n, t, 3, self.heads, d // self.heads))
        q, k, v = (qkv[:, :, i].permute_dims((0, 2, 1, 3)) for i in range(3))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.permute_dims((0, 2, 1, 3)).reshape((n, t, d)))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A small language model of pre-norm blocks."""

    def __init__(self, tokens: int, length: int, depth: int, heads: int, width: int):
        super().__init__()
        self.token, self.position = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)

    def forward(self, x: Any) -> Any:
        z = self.token(x) + self.position(cr.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(z)))


class Attention(nn.Module):
    """A projection to queries, keys and values, and causal attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv = heads, nn.Linear(width, 3 * width)

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        qkv = self.qkv(x).reshape((n, t, 3, self.heads, d // self.heads))
        q, k, v = (qkv[:, :, i].permute_dims((0, 2, 1, 3)) for i in range(3))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def mobilenet(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
    )  # fmt: skip


def model_of(workload: Workload) -> nn.Module:
    """The model with weights from the default generator."""
    sizes = workload.sizes
    match workload.model:
        case "mlp_digits":
            return nn.Sequential(
                nn.Linear(784, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(),
                nn.Linear(16, 10),
            )  # fmt: skip
        case "mlp_wide":
            return nn.Sequential(
                nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
            )
        case "lenet":
            return models.LeNet()
        case "resnet20":
            return models.resnet20()
        case "lstm" | "gru":
            layer = nn.LSTM if workload.model == "lstm" else nn.GRU
            return Recurrent(layer, **sizes, classes=workload.classes)
        case "gpt":
            return GPT(workload.tokens, workload.shape[1], **sizes)
        case "mobilenet":
            return mobilenet(**sizes)
        case "attention":
            return Attention(workload.shape[-1], **sizes)
        case "mlp_deep":
            layers = [nn.Linear(sizes["width"], sizes["width"]) for _ in range(sizes["depth"])]
            pairs = [m for layer in layers for m in (layer, nn.ReLU())]
            return nn.Sequential(*pairs, nn.Linear(sizes["width"], workload.classes))
    raise ValueError(workload.model)


def step_of(workload: Workload, weights: Any, dtype: str, variant: str) -> Callable[[], Any]:
    """A function that takes one step and returns the loss (or the result)."""
    compiled: Any = cr.compile if variant == "compiled" else lambda f: f
    batch = [cr.asarray(x) for x in workload.batch(dtype)]
    if workload.model == "gemm":
        product = compiled(_product(workload.layout))
        return lambda: product(*batch)
    model = model_of(workload)
    model.load_state_dict({k: cr.asarray(v) for k, v in weights.items()})
    model.to(dtype)
    if not workload.trains:
        model.eval()
        forward = compiled(model)

        def infer() -> Any:
            with cr.no_grad():
                return forward(batch[0])

        return infer
    step = compiled(_training(workload, model))
    return lambda: step(*batch)


def trainer_of(workload: Workload, weights: Any, variant: str) -> tuple[Any, Any]:
    """`train(x, labels)` takes a step on a batch of NumPy arrays, `predict(x)` gives the scores."""
    compiled: Any = cr.compile if variant == "compiled" else lambda f: f
    model = model_of(workload)
    model.load_state_dict({k: cr.asarray(v) for k, v in weights.items()})
    step, forward = compiled(_training(workload, model)), compiled(model)

    def train(x: Any, labels: Any) -> None:
        step(cr.asarray(x), cr.asarray(labels))

    def predict(x: Any) -> Any:
        model.eval()
        with cr.no_grad():
            scores = forward(cr.asarray(x)).numpy()
        model.train()
        return scores

    return train, predict


def _product(layout: str) -> Callable[[Any, Any], Any]:
    if layout == "TN":
        return lambda a, b: a.mT @ b
    return (lambda a, b: a @ b.mT) if layout == "NT" else (lambda a, b: a @ b)


def _training(workload: Workload, model: Any) -> Callable[..., Any]:
    opt = None
    if workload.optimizer is not None:
        name, settings = workload.optimizer
        kind: Any = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}[name]
        opt = kind(model.parameters(), **settings)

    def step(x: Any, labels: Any = None) -> Any:
        model.zero_grad()
        z = model(x)
        if labels is None:
            loss = cr.mean(z * z)
        else:
            loss = F.cross_entropy(z.reshape((-1, z.shape[-1])), labels.reshape((-1,)))
        loss.backward()
        if opt is not None:
            opt.step()
        return loss.detach()

    return step

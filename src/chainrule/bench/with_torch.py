"""The workloads in PyTorch, as its users write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.bench.workloads import Workload
from chainrule.errors import require

torch: Any = require("torch", extra="", purpose="run this contestant")
nn, F = torch.nn, torch.nn.functional


class Recurrent(nn.Module):
    def __init__(self, layer: Any, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.rnn = layer(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        z, _ = self.rnn(x)
        return self.head(z[:, -1])


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).reshape(n, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, tokens: int, length: int, depth: int, heads: int, width: int):
        super().__init__()
        self.token, self.position = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)

    def forward(self, x: Any) -> Any:
        z = self.token(x) + self.position(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(z)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv = heads, nn.Linear(width, 3 * width)

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        qkv = self.qkv(x).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, 10),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x))


class Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.new = stride, after - before

    def forward(self, x: Any) -> Any:
        z = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *[self.new // 2] * 2))
        return F.relu(x + z)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        stages = [
            nn.Sequential(Residual(a, b, s), Residual(b, b, 1), Residual(b, b, 1))
            for a, b, s in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        ]
        self.stages, self.fc = nn.Sequential(*stages), nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        z = self.stages(F.relu(self.bn(self.conv(x))))
        return self.fc(z.mean((2, 3)))


def model_of(workload: Workload) -> Any:
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
            return LeNet()
        case "resnet20":
            return ResNet20()
        case "lstm" | "gru":
            layer = nn.LSTM if workload.model == "lstm" else nn.GRU
            return Recurrent(layer, **sizes, classes=workload.classes)
        case "gpt":
            return GPT(workload.tokens, workload.shape[1], **sizes)
        case "mobilenet":
            c = sizes["channels"]
            return nn.Sequential(
                nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
                nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
            )  # fmt: skip
        case "attention":
            return Attention(workload.shape[-1], **sizes)
        case "mlp_deep":
            layers = [nn.Linear(sizes["width"], sizes["width"]) for _ in range(sizes["depth"])]
            pairs = [m for layer in layers for m in (layer, nn.ReLU())]
            return nn.Sequential(*pairs, nn.Linear(sizes["width"], workload.classes))
    raise ValueError(workload.model)


def step_of(workload: Workload, weights: Any, dtype: str, variant: str) -> Callable[[], Any]:
    """A function that takes one step and returns the loss (or the result)."""
    batch = [torch.from_numpy(x) for x in workload.batch(dtype)]
    if workload.model == "gemm":
        return _product(workload.layout, *batch)
    model = model_of(workload)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    model.to(getattr(torch, dtype))
    if "channels-last" in variant:
        model = model.to(memory_format=torch.channels_last)
        batch[0] = batch[0].to(memory_format=torch.channels_last)
    if not workload.trains:
        model.eval()
    run = torch.compile(model) if variant.startswith("compiled") else model
    if not workload.trains:

        def infer() -> Any:
            with torch.inference_mode():
                return run(batch[0])

        return infer
    step = _training(workload, model, run)
    return lambda: step(*batch)


def trainer_of(workload: Workload, weights: Any, variant: str) -> tuple[Any, Any]:
    """`train(x, labels)` takes a step on a batch of NumPy arrays, `predict(x)` gives the scores."""
    model = model_of(workload)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    layout = torch.channels_last if "channels-last" in variant else torch.contiguous_format
    model = model.to(memory_format=layout)
    run = torch.compile(model) if variant.startswith("compiled") else model
    step = _training(workload, model, run)

    def train(x: Any, labels: Any) -> None:
        step(torch.from_numpy(x).to(memory_format=layout), torch.from_numpy(labels))

    def predict(x: Any) -> Any:
        model.eval()
        with torch.inference_mode():
            scores = model(torch.from_numpy(x).to(memory_format=layout)).numpy()
        model.train()
        return scores

    return train, predict


def _product(layout: str, a: Any, b: Any) -> Callable[[], Any]:
    a, b = (a.T if layout == "TN" else a), (b.T if layout == "NT" else b)
    out = torch.empty(a.shape[0], b.shape[1], dtype=a.dtype)
    return lambda: torch.mm(a, b, out=out)


def _training(workload: Workload, model: Any, run: Any) -> Callable[..., Any]:
    opt = None
    if workload.optimizer is not None:
        name, settings = workload.optimizer
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
        # `fused` is PyTorch's fastest form of each on a CPU.
        opt = kind(model.parameters(), fused=True, **settings)

    def step(x: Any, labels: Any = None) -> Any:
        model.zero_grad()
        z = run(x)
        if labels is not None:
            loss = F.cross_entropy(z.reshape(-1, z.shape[-1]), labels.reshape(-1))
        else:
            loss = (z * z).mean()
        loss.backward()
        if opt is not None:
            opt.step()
        return loss.detach()

    return step

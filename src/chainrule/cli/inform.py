"""The commands that inform: models, datasets, doctor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import data, models, recipes
from chainrule.cli.tables import print_table
from chainrule.compiler.native import cache
from chainrule.compiler.native.target import host
from chainrule.errors import MissingExtraError
from chainrule.files import atomic_write

CORE = (
    "numpy",
    "llvmlite",
    "safetensors",
    "rich",
    "typer",
    "platformdirs",
    "pooch",
    "threadpoolctl",
)
EXTRAS = {
    "matplotlib": "plot", "pillow": "plot", "scikit-learn": "sklearn", "tensorboard": "tensorboard",
}  # fmt: skip


def show_models() -> list[tuple[str, str, str]]:
    """Name, parameters and description of each model."""
    rows = []
    for name, (make, description) in models.MODELS.items():
        with cr.random.preserved():
            count = sum(p.size for p in make().parameters())
        rows.append((name, f"{count:,}", description))
    return rows


def models_command() -> int:
    """List the models and the recipes that train them."""
    print_table(("model", "parameters", "what it is"), show_models())
    print()
    rows = [(r.name, r.data, r.description) for r in recipes.RECIPES.values()]
    print_table(("recipe", "default data", "what it trains"), rows)
    return 0


def datasets() -> int:
    """List the data sets."""
    rows = []
    for info in data.catalogue():
        size = f", {info.download_bytes / 1e6:.0f} MB" if info.download_bytes else ""
        rows.append(
            (info.name, f"{info.samples:,}", info.task, f"{info.source}{size}", info.description)
        )
    print_table(("data set", "samples", "task", "source", "what it is"), rows)
    print("\nA CSV file, or a folder of images with a sub-folder for each class, will do too.")
    return 0


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The kind of processor, and which of its vector instructions NumPy uses."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[index]
    extensions = [*found.get("baseline", ()), *found.get("found", ())]
    return f"{platform.machine()}, {os.cpu_count()} logical cores, {' '.join(extensions)}"


def _blas() -> str:
    from threadpoolctl import threadpool_info

    pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
    return (
        ", ".join(
            f"{p['internal_api']} {p.get('version') or ''} {p.get('architecture') or ''}, "
            f"{p['num_threads']} threads"
            for p in pools
        )
        or "none found"
    )


def _check_gradient() -> str:
    x = cr.asarray([[0.5, -1.5], [2.0, 0.25]], dtype=cr.float64, requires_grad=True)
    cr.autograd.gradcheck(lambda x: cr.sum(cr.tanh(x @ x)), x)
    return "agrees with central differences"


def _check_matmul() -> str:
    n = 512
    x = cr.random.uniform((n, n), generator=cr.random.Generator(0))
    best = min(_timed(lambda: x @ x) for _ in range(6))
    return f"{2 * n**3 / best / 1e9:.0f} GFLOP/s at {n} x {n} (NumPy)"


def _timed(action: Any) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _check_compiler() -> str:
    """Compile a function anew, and compare it with itself run eagerly."""

    def product(x: Any, w: Any) -> Any:
        return cr.sum(cr.tanh(x @ w) ** 2)

    x = cr.random.uniform((256, 256), generator=cr.random.Generator(0))
    compiled = cr.compile(product, backend="native")
    error = abs(float(compiled(x, x)) / float(product(x, x)) - 1)
    assert error < 1e-4, f"the result is off by {error:.1e}"
    best = min(_timed(lambda: compiled(x, x)) for _ in range(20))
    return (
        f"{host().name}, {cr.get_num_threads()} threads, {2 * 256**3 / best / 1e9:.0f} GFLOP/s at "
        "256 x 256"
    )


def _check_files() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.safetensors")
        cr.save({"x": cr.arange(3)}, path)
        assert cr.load(path)["x"].tolist() == [0, 1, 2]
        atomic_write(os.path.join(folder, "note.txt"), "ok")
    return "weights are saved and read back"


def _check_digits() -> str:
    train, test = data.load("digits")
    return f"{len(train)} training and {len(test)} held-out images"


def _check_picture() -> str:
    history = cr.History([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "loss.png")
        history.plot(path)
        return f"a plot of {os.path.getsize(path):,} bytes"


CHECKS = {
    "derivatives": _check_gradient,
    "matrix product": _check_matmul,
    "compiled code": _check_compiler,
    "files": _check_files,
    "digits data": _check_digits,
    "pictures": _check_picture,
}


def doctor() -> int:
    """Say what is installed, on what machine, and what works."""
    print(f"chainrule {cr.__version__}, Python {sys.version.split()[0]} on {platform.platform()}")
    print(f"processor: {_processor()}")
    print(f"BLAS: {_blas()}")
    folder = os.environ.get("CHAINRULE_DATA")
    print(f"CHAINRULE_DATA: {folder or 'not set'}")
    print(f"compiled programs: {cache.folder() or 'not kept, CHAINRULE_CACHE=0 is set'}\n")
    rows = [(p, _version_of(p) or "missing", "core") for p in CORE]
    rows += [
        (p, _version_of(p) or f"missing: pip install 'chainrule[{extra}]'", f"extra {extra}")
        for p, extra in EXTRAS.items()
    ]
    print_table(("package", "version", "part"), rows)
    print()
    failed = False
    for name, check in CHECKS.items():
        try:
            print(f"{name}: works, {check()}")
        except MissingExtraError as error:
            print(f"{name}: not here, {error}")
        except Exception as error:
            # Whatever is wrong with this machine is what the user wants to be told.
            failed = True
            print(f"{name}: fails, {type(error).__name__}: {error}")
    return 2 if failed else 0

"""What is built and installed: a pure wheel, a light import, nothing tied to one system."""

from __future__ import annotations

import ast
import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import chainrule

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "chainrule"
SOURCES = sorted(PACKAGE.rglob("*.py"))


def run(*arguments: str, **kwargs) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def test_wheel_is_pure_python(built):
    wheel, _ = built
    assert wheel.name == f"chainrule-{chainrule.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {name.split("/")[0] for name in names}
    assert folders == {"chainrule", f"chainrule-{chainrule.__version__}.dist-info"}
    assert "chainrule/py.typed" in names
    # The embedded data sets come from scikit-learn, so there is nothing here but Python.
    foreign = [
        n for n in names if n.startswith("chainrule/") and not n.endswith((".py", "/py.typed"))
    ]
    assert foreign == []


def test_wheel_holds_every_module_and_no_test(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    assert packed == {path.relative_to(PACKAGE.parent).as_posix() for path in SOURCES}
    assert not [name for name in packed if "test" in Path(name).stem.split("_")]


def test_wheel_metadata(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        info = f"chainrule-{chainrule.__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert metadata["Version"] == chainrule.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) >= {"plot", "sklearn", "tensorboard", "full"}
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence
    assert "chainrule = chainrule.cli:main" in entry_points
    required = {
        requirement.split(";")[0].split(">")[0].strip()
        for requirement in metadata.get_all("Requires-Dist")
        if "extra ==" not in requirement
    }
    assert required == {
        "numpy", "llvmlite", "safetensors", "rich", "typer", "platformdirs", "pooch",
        "threadpoolctl",
    }  # fmt: skip


def test_source_distribution_builds_the_same_wheel(built, tmp_path):
    wheel, sdist = built
    shutil.unpack_archive(sdist, tmp_path)
    (source,) = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out", cwd=source)
    (again,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {i.filename: i.CRC for i in first.infolist()} == {
            i.filename: i.CRC for i in second.infolist()
        }


OPTIONAL = (
    "jax", "matplotlib", "onnx", "pandas", "PIL", "pooch", "requests", "rich", "scipy", "sklearn",
    "tensorboard", "torch", "typer",
)  # fmt: skip


@pytest.mark.parametrize(
    "program",
    [
        "import chainrule",
        "import chainrule as cr; from chainrule import nn; "
        "cr.sum(nn.Linear(3, 2)(cr.ones((4, 3)))).backward()",
        "from chainrule import data, nn, optim; import chainrule as cr; cr.Trainer",
    ],
    ids=["import", "first Linear", "every room"],
)
def test_import_is_light(program):
    """Optional packages, and those that only some commands need, are imported when used."""
    report = f"{program}; import sys; print(*sorted(n for n in {OPTIONAL} if n in sys.modules))"
    assert run(sys.executable, "-c", report).split() == []


def imports(path: Path) -> set[str]:
    """The top-level names of all modules that a file imports, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("chainrule" if node.level else (node.module or "").split(".")[0])
    return found


def test_kernels_need_numpy_alone():
    """And each other."""
    room = "chainrule.primitives.kernels"
    for path in (PACKAGE / "primitives" / "kernels").glob("*.py"):
        assert imports(path) - {"numpy", "chainrule"} <= sys.stdlib_module_names, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chainrule"):
                assert (node.module or "").startswith(room), path
            elif isinstance(node, ast.Import):
                assert not any(a.name.startswith("chainrule") for a in node.names), path


def test_imports_are_declared():
    """What the sources import is the standard library, a dependency, or a package of an extra.

    A package that only comes along with another may go with its next version.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[extra] for extra in extras if extra != "dev")]
    names = {re.split(r"[\[<>=!~; ]", requirement)[0] for listed in lists for requirement in listed}
    modules = {"pillow": "PIL", "scikit-learn": "sklearn"}
    declared = {modules.get(name, name) for name in names}
    for path in SOURCES:
        assert imports(path) - sys.stdlib_module_names <= declared, path


# Modules and functions that Python has on some systems only.
TIED_MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "termios", "tty", "msvcrt", "winreg"}
TIED_NAMES = {
    "fork", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getloadavg", "uname",
    "SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "setitimer", "alarm", "memfd_create", "sendfile",
    "O_DIRECTORY", "posix_fallocate", "fdatasync",
}  # fmt: skip


LOOKED_FOR = {"caches.py", "runtime.py"}
"""Files that read what Linux tells of the processor in /sys, and go on without it."""


def walk(node: ast.AST, guarded: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, each with whether it stands in the body of a `try`, which can catch its lack."""
    yield node, guarded
    body = node.body if isinstance(node, ast.Try) else []
    for child in ast.iter_child_nodes(node):
        yield from walk(child, guarded or child in body)


def test_nothing_is_tied_to_one_system():
    for path in SOURCES:
        assert not imports(path) & TIED_MODULES, path
        for node, guarded in walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in TIED_NAMES, f"{where}: {node.attr}"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                tied = node.value.startswith(("/proc/", "/dev/", "/sys/", "/tmp"))
                optional = path.name in LOOKED_FOR and node.value.startswith("/sys/")
                assert guarded or optional or not tied, f"{where}: {node.value}"


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path.name: n for path, n in lengths.items() if n > 500} == {}

"""The direction of imports, which keeps the parts apart: see docs/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

PACKAGES = ("preprocess", "shards", "train", "model", "benchmarks", "tests")

# What each part may import of ours, besides itself. A part is a folder, or a file beside folders.
ALLOWED = {
    "shards/common": set(),
    "shards/format": {"shards/common"},
    "shards/sampling": {"shards/common"},
    "shards/remote": {"shards/common", "shards/format"},
    "shards/indexed": {"shards/common", "shards/format", "shards/remote"},
    "shards/dataset": {
        *("shards/common", "shards/format", "shards/indexed", "shards/remote", "shards/sampling"),
    },
    "shards/decode": {"shards/common", "shards/sampling"},
    "shards/feed": {
        *("shards/common", "shards/format", "shards/sampling", "shards/decode", "shards/dataset"),
        "shards/remote/prefetch",
    },
    "shards": {"shards"},
    "model": {"model", "shards"},
    "preprocess/images": {"shards"},
    "preprocess/sources": {"shards", "preprocess/synthetic"},
    "preprocess/synthetic": {"shards", "preprocess/sources/source", "preprocess/sources/row"},
    "preprocess/job": {"shards", "preprocess/images", "preprocess/sources", "preprocess/options"},
    "preprocess/index": {"shards", "preprocess/images", "preprocess/job"},
    "preprocess": {"preprocess", "shards"},
    "train/optim": {"shards", "model", "train/config", "train/options", "train/ranks"},
    "train/ranks": {"shards", "model", "train/config", "train/options"},
    "train": {"train", "model", "shards"},
    "benchmarks/measure": {"shards"},
    "benchmarks/report": {"shards", "benchmarks/measure"},
    "benchmarks": {"benchmarks", "preprocess", "shards", "train", "model"},
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            module = node.module or ""
            submodules = {f"{module}.{alias.name}" for alias in node.names if _is_module(f"{module}.{alias.name}")}
            names |= submodules or {module}
    return names


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def files(part: str) -> list[Path]:
    """The files of a part that belong to no part inside it."""
    path = ROOT / part
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    inner = [ROOT / other for other in ALLOWED if other.startswith(f"{part}/")]
    found = sorted(path.rglob("*.py"))
    return [
        file
        for file in found
        if not any(file.is_relative_to(other) or file == other.with_suffix(".py") for other in inner)
    ]


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_those_below_it(part: str) -> None:
    allowed = {part, *ALLOWED[part]}
    assert files(part)
    for path in files(part):
        ours = {name.replace(".", "/") for name in imported(path) if name.split(".")[0] in PACKAGES}
        wrong = {name for name in ours if not any(name == each or name.startswith(f"{each}/") for each in allowed)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_dali_is_imported_by_the_graph_and_the_peer_we_measure_alone() -> None:
    every = [path for package in PACKAGES[:-1] for path in (ROOT / package).rglob("*.py")]
    users = {path.relative_to(ROOT).as_posix() for path in every if _uses(path, "nvidia.dali")}
    assert users == {
        *(f"shards/decode/{name}.py" for name in ("graph", "policy_operators", "view_operators")),
        "benchmarks/peers/dali.py",
    }


def _uses(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in imported(path))


def test_sampling_is_pure() -> None:
    """No files, threads, torch or DALI: only numpy, and numba, which compiles a loop."""
    for path in files("shards/sampling"):
        outside = {name.split(".")[0] for name in imported(path)} - {"shards"} - set(sys.stdlib_module_names)
        assert outside <= {"numpy", "numba"}, path
        assert not imported(path) & {"threading", "os", "pathlib", "io", "random", "time"}, path


@pytest.mark.parametrize("folder", ["shards", "preprocess", "train", "model", "benchmarks"])
def test_a_folder_fits_on_one_screen(folder: str) -> None:
    for directory in {path.parent for path in (ROOT / folder).rglob("*.py")}:
        entries = [path.name for path in directory.iterdir() if path.name != "__pycache__"]
        assert len(entries) <= 15, f"{directory.relative_to(ROOT)} has {len(entries)} entries"


def test_importing_shards_loads_neither_dali_nor_torch() -> None:
    code = "import sys, shards, shards.__main__; print(sorted({'nvidia.dali', 'torch', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["model --help", "model predict --help", "model export --help", "train --help"])
def test_help_loads_neither_torch_nor_dali(command: str) -> None:
    program, *words = command.split()
    code = (
        f"import sys\nfrom {program}.__main__ import main\ntry:\n    main({words})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'nvidia.dali', 'torch', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_dali_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['nvidia.dali'] = None\n"
        "try:\n    from shards import Loader\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "shardfeed[cuda13]" in done.stdout

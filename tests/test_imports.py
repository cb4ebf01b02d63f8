"""The direction of imports, which keeps the parts apart: see docs/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("preprocess", "shards", "train", "model", "benchmarks", "tests")

ALLOWED = {
    "shards": set(),
    "model": {"shards"},
    "preprocess": {"shards"},
    "train": {"shards", "model"},
    "benchmarks": {"preprocess", "shards", "train", "model"},
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            names.add(node.module or "")
    return names


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    for path in files(package):
        ours = {name.split(".")[0] for name in imported(path)} & set(PACKAGES)
        assert ours <= {package, *ALLOWED[package]}, path


def test_dali_is_imported_in_the_pipeline_and_the_peer_we_measure_alone() -> None:
    users = {f"{package}/{path.name}" for package in ALLOWED for path in files(package) if _uses(path, "nvidia.dali")}
    assert users == {"shards/decode/graph.py", "shards/decode/policy_operators.py", "benchmarks/peers/plain_dali.py"}


def _uses(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in imported(path))


def test_importing_shards_loads_neither_dali_nor_torch() -> None:
    code = "import sys, shards, shards.__main__; print(sorted({'nvidia.dali', 'torch', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_dali_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['nvidia.dali'] = None\n"
        "try:\n    from shards import Loader\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "shardfeed[cuda13]" in done.stdout

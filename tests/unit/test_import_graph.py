"""Which part may import which: root scripts -> cli -> trainer -> {models, datasets, vr_cli} -> utils.

Read from the source, so that an import inside a function counts too: it is the same dependency, only later.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "openrlhf" / "openrlhf"

ALLOWED = {
    "cli": {"trainer", "models", "datasets", "vr_cli", "utils"},
    "trainer": {"models", "datasets", "vr_cli", "utils"},
    "vr_cli": {"models", "datasets", "utils"},
    "models": {"utils"},
    "datasets": {"utils"},
    "utils": set(),
}
"""Layer -> the layers that it may import, beside itself and LEAVES."""
LEAVES = {"config", "errors"}
"""Modules of the package's root. They may import each other, and nothing else of the package."""
ROOT_SCRIPTS = sorted(path.stem for path in REPO.glob("*.py"))
HEAVY = {"ray", "deepspeed", "vllm"}
"""Libraries that the reward and the maths do without."""


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def layer_of(module: str) -> str | None:
    """`openrlhf.models.actor` -> `models`; None for what is not ours, and for the package itself."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] or None if top == "openrlhf" else None


def package_files(layer: str) -> list[Path]:
    folder, module = PACKAGE / layer, PACKAGE / f"{layer}.py"
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [module]


@pytest.mark.parametrize("layer", [*ALLOWED, *LEAVES])
def test_no_import_climbs(layer: str):
    allowed = ALLOWED.get(layer, set()) | LEAVES | {layer}
    climbing = {
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in package_files(layer)
        for module in imported_modules(path)
        if layer_of(module) in {*ALLOWED, *LEAVES} - allowed
    }
    assert climbing == set()


def test_every_part_of_the_package_has_its_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__pycache__"} == {*ALLOWED, *LEAVES}


def test_the_package_imports_no_root_script():
    for path in PACKAGE.rglob("*.py"):
        assert not {name.partition(".")[0] for name in imported_modules(path)} & set(ROOT_SCRIPTS), path


def test_no_root_script_is_a_library():
    """Nothing imports a script that is run. `prompt_utils` and `ray_utils` are the two that are imported."""
    scripts = set(ROOT_SCRIPTS) - {"prompt_utils", "ray_utils"}
    for path in [*REPO.glob("*.py"), *REPO.glob("scripts/**/*.py"), *REPO.glob("setup_data/**/*.py")]:
        assert not imported_modules(path) & scripts, path


def test_modules_import_in_no_circle():
    """Imports at the top of modules form no circle; those inside functions cannot hurt."""
    graph = {module_name(path): top_level_imports(path) for path in PACKAGE.rglob("*.py")}
    visited: dict[str, bool] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if not visited.get(module):
            for imported in sorted(graph[module] & graph.keys()):
                visit(imported, (*path, module))
            visited[module] = True

    for module in graph:
        visit(module, ())


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_level_imports(path: Path) -> set[str]:
    """Modules that are imported when this one is, those that only type checkers see left out."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            is_module = {
                name for name in submodules if (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py").exists()
            }
            names.update(is_module or {node.module})
    return names


def test_reward_and_maths_import_without_the_heavy_libraries():
    """Module by module in one process, so that the first to bring one in is named."""
    layers = ("vr_cli", "models", "datasets", "config", "errors")
    modules = sorted(module_name(path) for layer in layers for path in package_files(layer))
    modules += ["openrlhf.trainer.ppo_utils.advantages", "openrlhf.trainer.ppo_utils.kl_controller", "prompt_utils"]
    code = f"""
import importlib, sys
sys.path[:0] = {[str(REPO / "openrlhf"), str(REPO)]}
for module in {modules}:
    importlib.import_module(module)
    found = {HEAVY} & sys.modules.keys()
    assert not found, f"{{module}} imports {{found}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

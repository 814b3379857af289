"""What imports what: every module's imports, read and held to the table of the house style."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import otgen

ROOT = Path(otgen.__file__).parent

# Part -> what it may import besides itself and the standard library. A part is a file or a folder of otgen/.
ALLOWED = {
    "_ext": set(),
    "ops": {"_ext", "torch", "numpy", "threadpoolctl"},
    "bars": {"tqdm"},
    "seeds": {"torch"},
    "ot": {"ops", "bars", "files", "seeds", "torch", "numpy", "scipy", "pyamg", "sklearn"},
    "nn": {"torch"},
    "models": {"ops", "ot", "nn", "train", "bars", "files", "seeds", "torch"},
    "metrics": {"ops", "ot", "files", "seeds", "torch", "numpy"},
    "data": {"torch", "numpy", "sklearn", "mlxtend"},
    "files": {"torch", "numpy", "safetensors", "PIL"},
    "train": {"bars", "files", "seeds", "torch", "numpy"},
    "plots": {"torch", "numpy", "matplotlib"},
    "charts": {"plots", "torch", "matplotlib"},
}
BELOW = set().union(*ALLOWED.values()) - {"_ext", "matplotlib"} | set(ALLOWED) - {"_ext"}
ALLOWED |= {"experiments": BELOW, "cli": BELOW | {"experiments", "__init__"}, "__init__": BELOW, "__main__": {"cli"}}

# Packages that otgen works without: imported where they are used, all others at the top of a file.
OPTIONAL = {"matplotlib", "mlxtend", "sklearn", "PIL", "ot"}  # this `ot` is POT, no part of otgen

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)


def part_of(name):
    """`ops` for otgen.ops.check, `__init__` for otgen itself, `torch` for torch.nn."""
    words = name.removesuffix(".__init__").split(".")
    return words[0] if words[0] != "otgen" else words[1] if len(words) > 1 else "__init__"


def package_of(name):
    """`otgen` for otgen.ops.check, `torch` for torch.nn."""
    return name.partition(".")[0]


def modules_of(node):
    """Full names of the modules that an import statement names: `from otgen import ops` is otgen.ops."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if exists(name) else node.module for name in inner]
    return []


def exists(name):
    """Whether a dotted name is a module of otgen, the compiled one too."""
    path = ROOT.parent.joinpath(*name.split("."))
    return name.startswith("otgen.") and (path.is_dir() or path.with_suffix(".py").exists() or name == "otgen._ext")


def imports(tree):
    """All (statement, module) of a file."""
    return [(node, name) for node in ast.walk(tree) for name in modules_of(node)]


@pytest.fixture(params=MODULES, ids=name_of)
def module(request):
    return name_of(request.param), ast.parse(request.param.read_text())


def test_there_is_something_to_read():
    assert {"otgen.__init__", "otgen.ops.assign", "otgen.ops.reference"} <= {name_of(path) for path in MODULES}


def test_imports_are_in_the_table(module):
    name, tree = module
    part = part_of(name)
    assert part in ALLOWED, f"{name}: give {part} a row in the table"
    imported = {part_of(used) for _, used in imports(tree)} - sys.stdlib_module_names
    assert imported <= ALLOWED[part] | {part}


def test_imports_are_at_the_top_but_for_optional_packages(module):
    _, tree = module
    for node, used in imports(tree):
        assert node in tree.body or package_of(used) in OPTIONAL, (
            f"line {node.lineno}: import of {used} inside a function"
        )


def test_optional_packages_are_not_imported_with_the_module(module):
    name, tree = module
    late = OPTIONAL - ({"matplotlib"} if part_of(name) == "plots" else set())
    assert not [used for node, used in imports(tree) if node in tree.body and package_of(used) in late]


def test_the_reference_is_for_tests_and_benchmarks_alone(module):
    _, tree = module
    assert "otgen.ops.reference" not in [used for _, used in imports(tree)]


def test_an_init_only_re_exports(module):
    name, tree = module
    if not name.endswith("__init__"):
        return
    folder = name.removesuffix(".__init__")
    if folder == "otgen":
        names = {"__all__", "__version__"}
    else:
        names = {"__all__"} | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.isupper()}
        assert all(used.startswith(folder + ".") for _, used in imports(tree) if used.startswith("otgen"))
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assert isinstance(node, (ast.Import, ast.ImportFrom)) or docstring or getattr(targets[0], "id", "") in names


def test_no_two_modules_need_each_other():
    graph = {}
    for path in MODULES:
        name = name_of(path).removesuffix(".__init__")
        used = {used for _, used in imports(ast.parse(path.read_text())) if used.startswith("otgen")}
        graph[name] = {u for u in used if not name.startswith(u)} if not path.name.startswith("__init__") else used
    done = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for used in graph.get(name, ()):
                visit(used, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_type_checkers_may_read_the_hints():
    assert (ROOT / "py.typed").is_file()


def test_the_source_folder_says_that_it_holds_no_compiled_half(tmp_path):
    shutil.copytree(ROOT, tmp_path / "otgen", ignore=shutil.ignore_patterns("_ext.*.*", "__pycache__"))
    done = subprocess.run([sys.executable, "-c", "import otgen"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: otgen: the compiled half is not in this folder" in done.stderr

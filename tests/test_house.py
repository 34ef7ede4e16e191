"""The house: who may import whom, and what no room may do (CONTRIBUTING.md has the picture)."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

from unetctl import errors

PACKAGE = Path(errors.__file__).parent
PROJECT = Path(__file__).parent.parent
MAX_LINES = 400

# Rooms inside a room: what they need is less, and who may enter is more, than holds for the files around them.
INNER = ("networks.spec", "runtime.events", "runtime.report")
# What each room may enter beside itself; what those may enter, it may too.
LAW: dict[str, tuple[str, ...]] = {
    "errors": (),
    "runtime.events": (),
    "geometry": ("errors",),
    "networks.spec": ("geometry",),
    "runtime.report": ("geometry", "runtime.events"),
    "sources": ("geometry",),
    "sinks": ("geometry",),
    "metrics": ("geometry",),
    "networks": ("networks.spec",),
    "recipe": ("networks.spec",),
    "runtime": ("sources", "sinks", "networks", "metrics", "recipe", "runtime.events", "runtime.report"),
    "cluster": ("runtime",),
    "training": ("runtime",),
    "objects": ("runtime",),
    "mosaic": ("runtime",),
    "reports": ("runtime.report", "geometry"),
    "jobs": ("cluster", "training", "objects", "mosaic", "reports"),
}
# The command line sees jobs and what they speak in, and nothing of how they work. "" is `unetctl/__init__.py`.
CLI = {"cli", "jobs", "recipe", "runtime.events", "runtime.report", "errors", ""}

# Third-party packages of the rooms that must load at once: these and no others.
LIGHT: dict[str, set[str]] = {
    "errors": set(),
    "runtime.events": set(),
    "runtime.report": set(),
    "geometry": {"numpy"},
    "networks.spec": {"numpy"},
    "recipe": {"pydantic", "pydantic_core", "annotated_types"},
    "cli": {"typer", "rich"},
}
# What the other rooms leave to one of them.
ONLY_IN: dict[str, set[str]] = {
    "typer": {"cli"},
    "rich": {"cli"},
    "distributed": {"cluster"},
    "torch": {"networks", "training", "runtime", "cluster", "objects", "mosaic", "jobs"},
}
HEAVY = ["torch", "zarr", "dask", "distributed", "skimage", "scipy", "tifffile", "imagecodecs", "numcodecs", "h5py"]
# Imported by name, installed with the package that they are a part of.
PART_OF = {"pydantic_core": "pydantic", "annotated_types": "pydantic", "bioimageio": "bioimageio-core"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(module: str) -> str:
    """The room that a module of the package stands in."""
    inside = module.partition(".")[2]
    for inner in INNER:
        if inside == inner or inside.startswith(f"{inner}."):
            return inner
    return "cli" if inside == "__main__" else inside.split(".")[0]


def imports_of(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all imports, wherever they stand; the submodule's where one is taken from a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name in modules() else base
        elif isinstance(node, ast.Call) and _name(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield node.lineno, _known_start(node.args[0])


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _known_start(node: ast.expr) -> str:
    """What is certain of a module's name that is put together at run time."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value.rstrip(".") if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def allowed_rooms(room: str) -> set[str]:
    """The rooms that a room may enter, its own included."""
    if room == "cli":
        return CLI
    seen, todo = {"errors"}, [room]
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo += LAW[here]
    return seen


def own_and_foreign(path: Path, module: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """What a module imports from the package, and from packages that others wrote."""
    own, foreign = [], []
    for line, name in imports_of(tree_of(path), module, path.name == "__init__.py"):
        top = name.split(".")[0]
        if top == "unetctl":
            own.append((line, name))
        elif top and top not in sys.stdlib_module_names and top != "__future__":
            foreign.append((line, top))
    return own, foreign


def forbidden_deeds(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what only the command line does: print, read the environment, exit."""
    attributes = {"os": "environ environb getenv getenvb putenv unsetenv _exit", "sys": "exit stdout stderr argv"}
    barred = {f"{module}.{name}" for module, names in attributes.items() for name in names.split()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _name(node) in barred:
            yield node.lineno, _name(node)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names if name in barred)
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            if name in ("print", "input", "exit", "quit", "breakpoint") or name.startswith("traceback.print_"):
                yield node.lineno, name
        elif isinstance(node, ast.Name) and node.id == "SystemExit" and isinstance(node.ctx, ast.Load):
            yield node.lineno, node.id


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of what is public and has no docstring; methods that Python names explain themselves."""
    if not ast.get_docstring(tree):
        yield 1, "the module"
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            marks = {_name(d).split(".")[-1] for d in node.decorator_list}
            if not ast.get_docstring(node) and not marks & {"overload", "setter", "deleter", "override"}:
                yield node.lineno, node.name
            if isinstance(node, ast.ClassDef):
                todo += node.body
        elif isinstance(node, ast.If | ast.Try):
            todo += [*node.body, *node.orelse]


def test_rooms_enter_only_the_rooms_below_them():
    unlawful = []
    for module, path in modules().items():
        room = room_of(module)
        if room == "":
            continue  # the front door hands out names of every room, when they are asked for
        assert room == "cli" or room in LAW, f"{path} stands in a room that the law does not know: {room}"
        for line, name in own_and_foreign(path, module)[0]:
            if room_of(name) not in allowed_rooms(room):
                unlawful.append(f"{path}:{line} {room} may not import {name}")
    assert not unlawful, "\n".join(unlawful)


def test_light_rooms_import_nothing_heavy_and_each_library_stays_in_its_rooms():
    unlawful = []
    for module, path in modules().items():
        room = room_of(module)
        for line, top in own_and_foreign(path, module)[1]:
            if top not in LIGHT.get(room, {top}) or room not in ONLY_IN.get(top, {room}):
                unlawful.append(f"{path}:{line} {room or 'the front door'} may not import {top}")
    assert not unlawful, "\n".join(unlawful)


@pytest.mark.parametrize("room", ["", *LIGHT])
def test_light_rooms_load_nothing_heavy(room: str):
    names = [module for module in modules() if room_of(module) == room]
    assert names or not room, f"there is no room {room}"
    code = (
        f"import importlib, sys\nfor name in {names or ['unetctl']}: importlib.import_module(name)\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"importing {room or 'unetctl'} loads {done.stdout}"


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom unetctl.cli.app import main\nsys.argv = ['unetctl', '--help']\n"
        "try: sys.exit(main())\n"
        f"finally: print('LOADED', *(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_what_computes_nothing_loads_no_torch(tmp_path: Path, tiny_weights: Path):
    """It takes seconds to load: to look at a file, or to join parts, nobody should wait for it."""
    from unetctl.jobs.api import predict

    stack, kept = tmp_path / "stack.npy", tmp_path / "kept.ome.zarr"
    np.save(stack, np.arange(2 * 40 * 40, dtype=np.uint16).reshape(2, 40, 40))
    predict(stack, task=str(tiny_weights), output=kept)
    calls = [
        ["info", str(stack)],
        ["info", str(kept)],
        ["stitch", str(kept)],
        ["sample", "dibco", "-o", "s.png"],
        ["tasks"],
    ]
    code = (
        f"import sys\nfrom unetctl.cli.app import main\nfor call in {calls}:\n"
        "    sys.argv = ['unetctl', *call]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (call, end.code)\n"
        "    assert 'torch' not in sys.modules, call"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "uint16" in done.stdout


def test_third_party_imports_are_declared():
    """What a room imports comes with the package; what an extra brings is imported where it is needed, not before."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    core = {_distribution(entry) for entry in project["dependencies"]}
    extra = {_distribution(entry) for name in extras if name != "dev" for entry in extras[name]}
    installed = packages_distributions()
    missing = []
    for module, path in modules().items():
        at_once = {node.lineno for node in tree_of(path).body if isinstance(node, ast.Import | ast.ImportFrom)}
        for line, top in own_and_foreign(path, module)[1]:
            name = PART_OF.get(top, top)
            homes = {_distribution(home) for home in installed.get(name, [name])}
            is_late = line not in at_once or room_of(module) == "cluster"
            if not homes & (core | extra if is_late else core):
                missing.append(f"{path}:{line} imports {top}, which pyproject.toml does not bring")
    assert not missing, "\n".join(missing)


def _distribution(requirement: str) -> str:
    """The normalised name in front of a requirement's extras, versions and markers."""
    name = requirement
    for mark in "[<>=!~; ":
        name = name.split(mark)[0]
    return name.strip().lower().replace("_", "-").replace(".", "-")


def test_the_package_brings_its_types():
    """Beside the modules, also where they are installed: without this mark no type checker looks at them."""
    assert (PACKAGE / "py.typed").is_file()


def test_files_are_short():
    files = [*modules().values(), *Path(__file__).parent.rglob("*.py")]
    long = {path: n for path in files if (n := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES}
    assert not long, f"files over {MAX_LINES} lines are two rooms: {long}"


def test_only_the_command_line_prints_exits_and_reads_the_environment():
    deeds = []
    for module, path in modules().items():
        for line, deed in forbidden_deeds(tree_of(path)):
            # The second signal says "leave now": there is no one above to tell.
            is_second_signal = module == "unetctl.runtime.signals" and deed == "os._exit"
            if room_of(module) != "cli" and not is_second_signal:
                deeds.append(f"{path}:{line} {deed}")
    assert not deeds, "\n".join(deeds)


def test_everything_public_is_documented():
    bare = [f"{path}:{line} {name}" for path in modules().values() for line, name in undocumented(tree_of(path))]
    assert not bare, "\n".join(bare)


# What follows holds the eyes of the tests above to account: a check that sees nothing finds nothing wrong.


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import unetctl.sinks.zarr", ["unetctl.sinks.zarr"]),
        ("def f():\n    from unetctl.networks import spec", ["unetctl.networks.spec"]),
        ("from unetctl.networks.spec import UNetSpec", ["unetctl.networks.spec"]),
        ("from .box import Box", ["unetctl.geometry.box"]),
        ("from ..runtime import events", ["unetctl.runtime.events"]),
        ("if TYPE_CHECKING:\n    import torch.nn", ["torch.nn"]),
        ("importlib.import_module(f'unetctl.jobs.{name}')", ["unetctl.jobs"]),
        ("import_module('zarr')", ["zarr"]),
    ],
)
def test_imports_are_seen(code: str, names: list[str]):
    assert [name for _, name in imports_of(ast.parse(code), "unetctl.geometry.here")] == names


@pytest.mark.parametrize(
    "code",
    [
        "print('hello')",
        "def f():\n    return os.environ['HOME']",
        "from os import getenv",
        "sys.exit(2)",
        "raise SystemExit",
        "sys.stderr.write('hello')",
        "traceback.print_exc()",
    ],
)
def test_deeds_are_seen(code: str):
    assert len(list(forbidden_deeds(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f(): ...", ["the module", "f"]),
        ("'a'\nclass A:\n    def b(self): ...", ["A", "b"]),
        ("'a'\nclass A:\n    'a'\n    def __len__(self): ...\n    def _b(self): ...", []),
        ("'a'\nclass _A:\n    def b(self): ...\ndef f():\n    'a'\n    def g(): ...", []),
        ("'a'\nif True:\n    def f(): ...\nelse:\n    def g(): ...", ["g", "f"]),
    ],
)
def test_bare_names_are_seen(code: str, names: list[str]):
    assert sorted(name for _, name in undocumented(ast.parse(code))) == sorted(names)


def test_law_is_a_picture_without_circles():
    for room, directly_below in LAW.items():
        for below in directly_below:
            assert room not in allowed_rooms(below), f"{room} and {below} may enter each other"
    rooms = {"sources", "sinks", "networks", "metrics"}
    assert all(allowed_rooms(room) & rooms == {room} for room in rooms)
    assert allowed_rooms("recipe") == {"recipe", "networks.spec", "geometry", "errors"}
    assert allowed_rooms("jobs") == set(LAW)

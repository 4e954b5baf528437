"""The map is enforced: arrows point down, the core is pure, trust is a type, and every code stands in one table."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from agentbus import errors

ROOT = Path(__file__).resolve().parents[1] / "agentbus"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "home", "disk"),
    ("wire",),
    ("crypto",),
    ("delegation",),
    ("protocol",),
    ("log",),
    ("keyfile",),
    ("identity", "directory", "holdings", "logstore", "transport"),
    ("authn",),
    ("runtime",),
    ("services",),
    ("connect",),
    ("host", "enrolment"),
    ("bus", "audit"),
    ("replay",),
    ("testing",),
    ("gateway", "bridges"),
    ("cli",),
)
"""Bottom to top (architecture.md, Layers). Rooms of one layer do not import each other, but for ``SIDEWAYS``."""
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
SIDEWAYS = {("bus", "audit"), ("directory", "identity"), ("bridges", "gateway")}
PURE = ("wire", "crypto", "delegation", "protocol", "log")
FORBIDDEN = {
    "time",
    "random",
    "secrets",
    "socket",
    "logging",
    "asyncio",
    "os",
    "pathlib",
    "io",
    "threading",
    "sqlite3",
    "zmq",
    "tempfile",
    "subprocess",
    "uuid",
    "select",
    "shutil",
    "sys",
    "warnings",
    "contextvars",
    "signal",
    "fcntl",
    "glob",
}
READS_FILES = {
    "log/read.py": {"os", "pathlib", "io"},
    **{f"log/{name}.py": {"pathlib"} for name in ("boxes", "index", "outline", "scanning", "verify")},
}
"""What may read files although it stands in the core: a log is read where it lies (verify only names the folder)."""
BY_NAME = {("agent.py", "agentbus.bus.opening"), ("identity.py", "agentbus.bus.opening")}
"""Arrows that point up, each a verb of a public class that opens a bus: the module is looked up when it is called."""
CYCLES = {
    frozenset({"bus.base", "bus.local", "bus.opening"}),  # Bus.connect and Bus.local are verbs of the class they make
    frozenset({"delegation.fold", "delegation.trust"}),  # a fold begins with a Trust and ends with one
    frozenset({"runtime.caller", "runtime.exchange"}),
}
"""Modules that know each other today, by an import in a function or for types only. None may be added."""


@cache
def sources() -> dict[str, ast.Module]:
    """Every module's tree, by its path below agentbus/."""
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text("utf-8")) for p in sorted(ROOT.rglob("*.py"))}


def room(path: str) -> str:
    first = path.split("/")[0]
    return first.removesuffix(".py")


def imports(path: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Absolute module names with lines; those under TYPE_CHECKING, in functions and looked up by name count, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            if isinstance(name, ast.Constant) and (path.split("/")[-1], name.value) not in BY_NAME:
                yield str(name.value), node.lineno
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["agentbus", *path.split("/")[:-1]]
                base = package[: len(package) - node.level + 1]
                yield ".".join([*base, *([node.module] if node.module else [])]), node.lineno
                continue
            assert node.module is not None
            if node.module == "agentbus":
                yield from ((f"agentbus.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def test_imports_point_down_only() -> None:
    wrong = []
    for path, tree in sources().items():
        mine = room(path)
        if mine in ("__init__", "__main__"):
            continue
        assert mine in RANK, f"{path}: no layer is called {mine!r}; give it a place in LAYERS"
        for name, line in imports(path, tree):
            parts = name.split(".")
            if parts[0] != "agentbus" or len(parts) < 2 or parts[1] == mine or parts[1] == "__version__":
                continue
            theirs = parts[1]
            if theirs not in RANK:
                continue  # a public name of agentbus/__init__.py
            if RANK[theirs] >= RANK[mine] and (mine, theirs) not in SIDEWAYS:
                wrong.append(f"{path}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [p for p in sources() if room(p) in RANK and RANK[room(p)] < RANK["cli"]])
def test_below_the_command_line_nothing_imports_the_package_itself(path: str) -> None:
    """``from agentbus import Bus`` would import everything, so every arrow would point up."""
    public = [
        f"{path}:{line}"
        for name, line in imports(path, sources()[path])
        if name == "agentbus" or (name.startswith("agentbus.") and name.split(".")[1] not in RANK)
    ]
    if RANK[room(path)] < RANK["testing"]:
        assert not [at for at in public if not at.endswith("__version__")]


def test_a_transport_imports_only_errors_and_wire() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources().items()
        if room(path) == "transport"
        for name, line in imports(path, tree)
        if name.startswith("agentbus.") and name.split(".")[1] not in ("errors", "wire", "transport")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_runtime_names_no_concrete_transport_or_store() -> None:
    concrete = re.compile(
        r"agentbus\.(transport\.(memory|zeromq|nats)|logstore\.\w+|directory\.(store|mirror|granted|data))\b"
    )
    for named in ("transport/memory.py", "transport/zeromq/__init__.py", "directory/store.py", "directory/mirror.py",
                  "directory/granted.py", "directory/data.py"):  # fmt: skip
        assert named in sources(), f"{named} is looked for below, and does not exist"
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources().items()
        if room(path) == "runtime"
        for name, line in imports(path, tree)
        if concrete.match(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_that_know_each_other_are_these_and_no_more() -> None:
    known = {_module(path): _known_to(path, tree) for path, tree in sources().items() if path != "__init__.py"}
    reached = {module: _reached(module, known) for module in known}
    cycles = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in known
        if module in reached[module]
    }
    assert cycles == CYCLES, "named and broken meanwhile, or not named"


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _known_to(path: str, tree: ast.Module) -> set[str]:
    """The modules that this one imports, at its top or anywhere else; of a package's name, the module it names."""
    modules = {_module(other) for other in sources()}
    found = {name.removeprefix("agentbus.") for name, _ in imports(path, tree) if name.startswith("agentbus.")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentbus.") and not node.level:
            found |= {f"{node.module}.{alias.name}".removeprefix("agentbus.") for alias in node.names}
    return (found & modules) - {_module(path)}


def _reached(start: str, known: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        fresh = known[left.pop()] - seen
        seen |= fresh
        left += fresh
    return seen


def test_the_core_imports_no_clock_socket_randomness_or_logging() -> None:
    wrong = []
    for path, tree in sources().items():
        if room(path) not in PURE and path != "errors.py":
            continue
        for name, line in imports(path, tree):
            if name.split(".")[0] in FORBIDDEN - READS_FILES.get(path, set()):
                wrong.append(f"{path}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_core_reads_no_clock_and_opens_no_file() -> None:
    wrong = []
    for path, tree in sources().items():
        if room(path) not in PURE:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.search(r"date(time)?\.(now|today|utcnow)$", ast.unparse(node)):
                wrong.append(f"{path}:{node.lineno} reads the clock")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                banned = {"print", "input", "exec", "eval", "__import__"} | (
                    set() if path == "log/read.py" else {"open"}
                )
                if node.func.id in banned:
                    wrong.append(f"{path}:{node.lineno} calls {node.func.id}()")
            if isinstance(node, ast.Global):
                wrong.append(f"{path}:{node.lineno} keeps global state")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("made", "only"), [("VerifiedMessage", "protocol/opening.py"), ("Permitted", "delegation/decide.py")]
)
def test_trust_is_made_in_one_place(made: str, only: str) -> None:
    """Also by ``replace``, ``__new__``, ``object.__setattr__`` or under another name."""
    wrong = []
    for path, tree in sources().items():
        names = {made}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names |= {alias.asname for alias in node.names if alias.name == made and alias.asname}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            last = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            text = ast.unparse(called)
            through = last in ("__new__", "_make") and (
                made in text or any(isinstance(a, ast.Name) and a.id in names for a in node.args)
            )
            if (last in names or through) and path != only:
                wrong.append(f"{path}:{node.lineno}")
    assert not wrong, f"{made} is constructed in {wrong}"
    assert any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == made
        for node in ast.walk(sources()[only])
    )


# ── codes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

CLASSES = {
    name for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, errors.AgentBusError)
}
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
DEFAULTS = {cls.default_code for cls in map(vars(errors).get, CLASSES) if cls is not None}


@cache
def tables() -> dict[str, list[str]]:
    """code → the modules whose CODES table names it."""
    found: dict[str, list[str]] = {}
    for path, tree in sources().items():
        for node in tree.body:
            target = (
                node.target
                if isinstance(node, ast.AnnAssign)
                else node.targets[0]
                if isinstance(node, ast.Assign)
                else None
            )
            if isinstance(target, ast.Name) and target.id == "CODES" and isinstance(node.value, ast.Dict):  # type: ignore[union-attr]
                for key in node.value.keys:  # type: ignore[union-attr]
                    assert isinstance(key, ast.Constant) and isinstance(key.value, str), f"{path}: a code is a literal"
                    found.setdefault(key.value, []).append(path)
    return found


@cache
def literals() -> dict[str, set[str]]:
    """String literals that look like codes, outside of CODES tables → where they stand."""
    found: dict[str, set[str]] = {}
    for path, tree in sources().items():
        skip: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if isinstance(target, ast.Name) and target.id == "CODES" and isinstance(node.value, ast.Dict):
                    skip |= {id(key) for key in node.value.keys}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in skip else None
            if isinstance(text, str) and CODE.fullmatch(text):
                found.setdefault(text, set()).add(f"{path}:{node.lineno}")
    return found


def raised() -> Iterator[tuple[str, str]]:
    """(code, where) for each call of an error class whose first argument is a literal."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if name not in CLASSES or name == "Problem":
                continue
            choices = [node.args[0]]
            if isinstance(node.args[0], ast.IfExp):
                choices = [node.args[0].body, node.args[0].orelse]
            for first in choices:
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value, f"{path}:{node.lineno}"


def test_every_code_that_is_raised_stands_in_a_table() -> None:
    known = tables()
    wrong = sorted(
        {f"{where} raises {code!r}" for code, where in raised() if code not in known and code not in DEFAULTS}
    )
    assert not wrong, "\n".join(wrong)


def test_every_code_in_a_table_is_used() -> None:
    """Somewhere outside a table its text stands: raised, returned or compared."""
    used = literals()
    dead = sorted(
        f"{', '.join(where)}: {code!r}" for code, where in tables().items() if code not in used and code not in DEFAULTS
    )
    assert not dead, "dead codes:\n" + "\n".join(dead)


def test_a_code_stands_in_one_table() -> None:
    twice = {code: where for code, where in tables().items() if len(where) > 1}
    assert not twice


def test_a_code_is_dotted_lower_case_with_a_sentence() -> None:
    for path in sorted({where for all_ in tables().values() for where in all_}):
        module = importlib.import_module(
            "agentbus." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        )
        for code, why in module.CODES.items():
            assert CODE.fullmatch(code) or code in DEFAULTS, code
            assert why, code
            assert why.endswith((".", "?")) and "\n" not in why, (code, why)


# ── errors.py ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_error_tree_is_one_page() -> None:
    assert len(CLASSES) <= 30
    doc = errors.__doc__ or ""
    tree = doc.split("::", 1)[1]
    named = set(re.findall(r"^\s*(?:[├└]── )?([A-Z]\w+)", tree, re.M)) & CLASSES
    assert named == CLASSES, f"not in the tree: {CLASSES - named}"
    for line in tree.splitlines():
        found = re.match(r"\s*[├└]── (\w+)\s+([A-Z]\w+Error)?", line)
        if found and found[2]:
            assert found[2] in {base.__name__ for base in getattr(errors, found[1]).__mro__}, line


def test_errors_imports_nothing_of_agentbus() -> None:
    assert not [name for name, _ in imports("errors.py", sources()["errors.py"]) if name.startswith("agentbus")]


BARE = ("Exception", "RuntimeError", "ValueError", "TypeError", "KeyError", "AssertionError")


def test_verification_raises_no_exception_without_a_code() -> None:
    """No bare Exception, and no assert as a check: ``python -O`` removes those."""
    wrong = []
    for path, tree in sources().items():
        if room(path) not in ("wire", "crypto", "delegation"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                wrong.append(f"{path}:{node.lineno} asserts")
            called = node.exc.func if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in BARE:
                wrong.append(f"{path}:{node.lineno} raises {called.id}")
    assert not wrong, "\n".join(wrong)


def test_a_commands_module_loads_nothing_that_speaks_to_a_bus() -> None:
    """``agentbus --help`` loads every command's module: heavy imports stand in the function that needs them."""
    code = """
import sys
from agentbus.cli.main import cli
cli.main(["--help"], standalone_mode=False)
print(*sorted(set(sys.modules) & {"pydantic", "zmq", "nacl", "msgpack", "asyncio", "rich", "sqlite3"}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_test_files_without_a_package_have_names_of_their_own() -> None:
    """pytest imports them by their bare names, so two of one name cannot be collected in one run."""
    names: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        if not (path.parent / "__init__.py").exists():
            names.setdefault(path.name, []).append(str(path))
    assert not [paths for paths in names.values() if len(paths) > 1]

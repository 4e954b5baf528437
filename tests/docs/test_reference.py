"""The generated pages are what ``docs/generate.py`` makes of the code as it is, and no link leads nowhere."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
THREATS = (DOCS / "threats.md").read_text("utf-8")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generating_again_gives_the_same_files(generate: ModuleType) -> None:
    stale = [
        str(path.relative_to(ROOT)) for path, text in generate.pages().items() if path.read_bytes() != text.encode()
    ]
    assert stale == [], "run: python docs/generate.py"


def test_every_parameter_of_a_public_function_is_explained(generate: ModuleType) -> None:
    """Under **Args**, where the page shows that there is one."""
    silent = []
    for part in re.split(r"^#{2,3} ", generate.api_page(), flags=re.MULTILINE)[1:]:
        name, _, text = part.partition("\n")
        shown = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)
        if shown is None or not re.match(r"(@classmethod\n)?(async )?def ", shown[1]):
            continue
        listed = set(re.findall(r"^- `(\w+)`: ", text, re.MULTILINE))
        arguments = ast.parse(re.sub(r"^@classmethod\n", "", shown[1]) + ": ...").body[0].args  # type: ignore[attr-defined]
        every = [*arguments.args, *arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
        silent += [f"{name}: {one.arg}" for one in every if one.arg not in listed]
        assert text.replace(shown[0], "").strip(), f"{name} says nothing"
    assert silent == []


def test_every_code_is_on_the_page(generate: ModuleType) -> None:
    page = (DOCS / "reference" / "errors.md").read_text("utf-8")
    for table in generate.code_tables().values():
        for code in table:
            assert f"`{code}`" in page


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in sorted(DOCS.rglob("*.md"))])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in LINK.findall(text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[^`]+\.py::\w+)`", THREATS))))
def test_threats_name_tests_that_exist(named: str) -> None:
    path, _, name = named.partition("::")
    assert re.search(rf"def {name}\b", (ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize("where", sorted(set(re.findall(r"`([a-z]+/[a-z_/]+\.py:[\w.]+)`", THREATS))))
def test_threats_name_checks_that_exist(where: str) -> None:
    path, _, name = where.partition(":")
    text = (ROOT / "agentbus" / path).read_text("utf-8")
    for part in name.split("."):
        assert re.search(rf"(def|class) {part}\b|^ *{part}\b.*[:=]", text, re.MULTILINE), part


def test_threats_name_codes_and_vectors_that_exist(generate: ModuleType) -> None:
    codes = {code for table in generate.code_tables().values() for code in table}
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", re.sub(r"`[^`]*/[^`]*`", "", THREATS))) - {"agentbus.audit"}
    assert named <= codes, named - codes
    vectors = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "vectors").glob("*.json"))
    for group in re.findall(r"vectors? ((?:\"[^\"]+\"(?:, )?)+)", THREATS):
        for name in re.findall(r'"([^"]+)"', group):
            assert f'"name": "{name}"' in vectors, name


@pytest.mark.parametrize("page", ["envelope", "grant", "directory", "exchange"])
def test_a_specification_names_codes_that_exist(generate: ModuleType, page: str) -> None:
    codes = {code for table in generate.code_tables().values() for code in table}
    text = (DOCS / "spec" / f"{page}.md").read_text("utf-8")
    prefixes = "malformed|reject|denied|directory|unavailable|handler|key|request"
    named = set(re.findall(rf"`((?:{prefixes})\.[a-z_]+)`", text))
    assert named and named <= codes, named - codes


def test_decisions_are_numbered_once_and_say_their_number() -> None:
    numbers = []
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        numbers.append(path.name[:4])
        assert path.read_text("utf-8").startswith(f"# {path.name[:4]}: "), path.name
    assert numbers == [f"{n:04}" for n in range(len(numbers))]

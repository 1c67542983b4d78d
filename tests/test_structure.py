"""The house: who may import whom, and what a reader can take in at once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "dlapps"
PRACTICALS = "transfer", "visualization", "adaptation", "gans"
# What each part may import beside itself; the others may import all that stands before them.
SHARED = {"runtime", "files", "sources", "checks", "replacements", "texts"}
ENGINE = {"steps", "training", "supervised", "views"}
ALLOWED = {
    "datasets": SHARED,
    "models": SHARED | {"datasets"},
    "plotting": set(),
    **{name: SHARED | ENGINE | {"datasets", "models"} for name in PRACTICALS},
}


def parts():
    """Return {module: names of this package that it imports}, both as dotted names below it."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        imported = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                imported |= {f"{base}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        found[name] = imported
    return found


def modules_of(imported, known):
    """Return which known modules the dotted names, such as dlapps.files.fingerprint, stand in."""
    result = set()
    for name in imported:
        if name.split(".")[0] != "dlapps":
            continue
        rest = name.split(".")[1:]
        while rest and ".".join(rest) not in known:
            rest = rest[:-1]
        if rest:
            result.add(".".join(rest))
    return result


PARTS = parts()
EDGES = {name: modules_of(imported, PARTS) - {name} for name, imported in PARTS.items()}


def test_the_package_never_imports_tools_or_tests():
    for name, imported in PARTS.items():
        assert not {i.split(".")[0] for i in imported} & {"tools", "tests", "benchmarks"}, name


@pytest.mark.parametrize("part", ALLOWED)
def test_data_go_one_way(part):
    for name, imported in EDGES.items():
        if name.split(".")[0] == part:
            others = {i.split(".")[0] for i in imported} - {part}
            assert others <= ALLOWED[part], f"{name} imports {others - ALLOWED[part]}"


def test_there_is_no_circle():
    # A package's __init__ passes on what its modules define: it counts as them, not as a module.
    edges = {n: {i for i in found if not _is_package(i)} for n, found in EDGES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            path.append(name)
            for other in sorted(edges[name]):
                visit(other)
            done.add(path.pop())

    for name in sorted(edges):
        if not _is_package(name):
            visit(name)


def _is_package(name):
    return (SOURCE / name.replace(".", "/")).is_dir()


def test_tests_mirror_packages_and_tools():
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")} | {"tools"}
    mirrored = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders - {"student"} <= mirrored | {"__pycache__"}

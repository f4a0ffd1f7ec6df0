"""Packages import one way: none imports one that imports it."""

import ast
from collections import defaultdict
from pathlib import Path

import blockwise

PACKAGE = Path(blockwise.__file__).parent


def imported_packages(module):
    """Packages of blockwise that a module names in an import, at its top or inside a function."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("blockwise."):
            first = (node.module or "").split(".")[1]
            if (PACKAGE / first).is_dir():
                yield first


def test_no_two_packages_import_each_other():
    imports = defaultdict(set)
    for package in (path.parent for path in PACKAGE.glob("*/__init__.py")):
        for module in package.rglob("*.py"):
            imports[package.name].update(imported_packages(module))
    assert len(imports) > 10
    mutual = {
        (one, other)
        for one, others in imports.items()
        for other in others
        if one < other and one in imports[other]
    }
    assert mutual == set()

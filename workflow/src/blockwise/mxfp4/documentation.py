"""English that every Python brings: the documentation of its standard library.

Two parts: the language reference, which `help()` shows topic by topic, and the docstrings of the
library's modules, each module's joined into one document. Code and tests are left out.
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from pydoc_data import topics

from blockwise.errors import DatasetError

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TOPIC = "topic: "  # before the names of topics, so that none is a module's


def documented_modules(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of some modules below a folder that document anything."""
    return [name for name in names if module_text(folder / name)]


def topic_names() -> list[str]:
    """Names of the topics of the language reference."""
    return [f"{TOPIC}{name}" for name in sorted(topics.topics)]


def document(folder: Path, name: str) -> str:
    """The text of a topic or of a module below a folder."""
    if name.startswith(TOPIC):
        return str(topics.topics[name.removeprefix(TOPIC)])
    return module_text(folder / name)


def module_text(path: Path) -> str:
    """Docstrings of a module, in the order of its source, with a blank line between two.

    Raises:
        DatasetError: it cannot be read or is no Python.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(
            f"cannot read the documentation of {path}: {error}; mend this Python's library, or "
            "name text of your own with `corpus: {kind: path}`"
        ) from error
    nodes = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    texts = (ast.get_docstring(node) for node in nodes)
    return "\n\n".join(text for text in texts if text)

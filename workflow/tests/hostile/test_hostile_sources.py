"""What the source may not do: load pickles, run text, or take a text for a template."""

import ast
import functools
from pathlib import Path

import pytest

import blockwise

PACKAGE = Path(blockwise.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SEEING_USER_TEXT = ("claims", "compaction", "config", "report", "serving", "data")
OWN_SENTENCES = ("data/synthetic", "pocket/", "figures/")
"""Generators and captions that fill in sentences of their own, in which nobody else writes."""

FORBIDDEN_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load",
    "cloudpickle.load", "cloudpickle.loads", "marshal.load", "marshal.loads", "shelve.open",
    "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.load_all", "yaml.full_load",
    "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "eval", "exec",
    "os.system", "os.popen", "np.fromregex",
}  # fmt: skip


def name_of(node):
    """A dotted name as it is written, or nothing."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{name_of(value)}.{attr}"
    return "?"


@functools.cache
def parsed(text):
    return list(ast.walk(ast.parse(text)))


def nodes(module, kind):
    return [node for node in parsed(module.read_text(encoding="utf-8")) if isinstance(node, kind)]


def keyword(call, name):
    return next((word.value for word in call.keywords if word.arg == name), None)


def constant(node):
    return node.value if isinstance(node, ast.Constant) else None


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_read_in_a_way_that_runs_it(module):
    for call in nodes(module, ast.Call):
        name = name_of(call.func)
        assert name not in FORBIDDEN_CALLS, f"line {call.lineno}: {name}"
        if name.endswith("torch.load"):
            assert constant(keyword(call, "weights_only")) is True, f"line {call.lineno}: {name}"
        if name in {"np.load", "numpy.load"}:
            assert constant(keyword(call, "allow_pickle")) is not True, f"line {call.lineno}"
        assert constant(keyword(call, "trust_remote_code")) is not True, f"line {call.lineno}"
        assert constant(keyword(call, "shell")) is not True, f"line {call.lineno}: {name}"
    for bases in (node.bases for node in nodes(module, ast.ClassDef)):
        known = {name_of(base) for base in bases}
        if "pickle.Unpickler" in known:  # one that knows what it may build
            assert "find_class" in module.read_text(encoding="utf-8")
        assert not known & FORBIDDEN_CALLS - {"pickle.Unpickler"}


@pytest.mark.parametrize(
    "module",
    [
        path
        for path in MODULES
        if str(path.relative_to(PACKAGE)).startswith(SEEING_USER_TEXT)
        and not str(path.relative_to(PACKAGE)).startswith(OWN_SENTENCES)
    ],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_only_sentences_of_the_source_are_ever_filled_in(module):
    """A text from elsewhere is an argument of a template and never the template itself."""
    for call in nodes(module, ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"format", "format_map"}:
            template = call.func.value
            is_ours = isinstance(template, ast.Constant) or name_of(template).isupper()
            assert is_ours, f"line {call.lineno}: {ast.unparse(call)}"
        assert name_of(call.func) not in {"Template", "string.Template", "jinja2.Template"}
    for operation in nodes(module, ast.BinOp):
        if isinstance(operation.op, ast.Mod) and not isinstance(operation.left, ast.Constant):
            assert not isinstance(operation.right, ast.Tuple | ast.Dict), f"line {operation.lineno}"


def test_the_checks_see_what_they_look_for(tmp_path):
    module = PACKAGE / "mxfp4/torch_files.py"
    calls = [name_of(call.func) for call in nodes(module, ast.Call)]
    assert "torch.load" in calls
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\ntorch.load('x')\n")
    with pytest.raises(AssertionError, match=r"torch\.load"):
        test_no_file_is_read_in_a_way_that_runs_it(bad)
    bad.write_text("def ask(text):\n    return text.format(1)\n")
    with pytest.raises(AssertionError, match=r"text\.format"):
        test_only_sentences_of_the_source_are_ever_filled_in(bad)

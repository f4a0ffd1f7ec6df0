"""Loading a tokenizer: the one that `AutoTokenizer` takes, without its cost where that is known."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from blockwise.models import tokenizer
from blockwise.models.tokenizer import load_tokenizer

COUNT_ONE = """
import sys
from blockwise.compaction import play_batch
assert play_batch.Renderer(sys.argv[1]).count([{"role": "user", "content": "Hello"}], True) > 0
print(*sorted({"torch", "sklearn", "pandas"} & set(sys.modules)))
"""


def described(loaded):
    own = {name: str(value) for name, value in vars(loaded).items() if name != "_tokenizer"}
    return type(loaded), loaded.backend_tokenizer.to_str(), own


def changed(tiny_model, folder, name, **values):
    """A copy of the model files with some keys of one of them replaced."""
    shutil.copytree(tiny_model.tokenizer_path, folder)
    content = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("config.json", {"model_type": "gpt_oss"}),
        ("config.json", {"model_type": "qwen2"}),  # its files are not believed
        ("tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer"}),
    ],
)
def test_it_is_the_tokenizer_of_the_automatic_classes(tiny_model, tmp_path, file, values):
    folder = changed(tiny_model, tmp_path / "model", file, **values)
    assert described(load_tokenizer(folder)) == described(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
@pytest.mark.parametrize("tokenizer_class", ["Qwen2Tokenizer", "Qwen2TokenizerFast"])
def test_a_class_that_the_files_of_a_family_name_is_the_one_that_would_be_chosen(
    tiny_model, tmp_path, model_type, tokenizer_class
):
    first = changed(tiny_model, tmp_path / "first", "config.json", model_type=model_type)
    named = SimpleNamespace(tokenizer_path=first)
    values = {"tokenizer_class": tokenizer_class}
    folder = changed(named, tmp_path / "model", "tokenizer_config.json", **values)
    assert tokenizer._believed_class(Path(folder)) == tokenizer_class
    assert described(load_tokenizer(folder)) == described(AutoTokenizer.from_pretrained(folder))


def test_a_job_that_counts_tokens_imports_neither_torch_nor_scikit_learn(tiny_model):
    command = [sys.executable, "-c", COUNT_ONE, tiny_model.tokenizer_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.split() == []

"""Starting from an earlier pocket backbone: its weights, under a vocabulary that has changed."""

import hashlib
import subprocess

import pytest
import torch
from safetensors.torch import save
from tokenizers import Tokenizer, models, pre_tokenizers

from blockwise.config.pocket import EarlierBackbone
from blockwise.errors import ConfigError
from blockwise.pocket import earlier
from blockwise.pocket.earlier import EMBEDDING, moved_embeddings, start_from

PIECES = ["a", "b", "ab", "c"]


def made(pieces):
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


class Vocabulary:
    def __init__(self, tokens):
        self._tokens = tokens

    def __len__(self):
        return len(self._tokens)

    def convert_ids_to_tokens(self, ids):
        return [self._tokens[index] for index in ids]


class Model(torch.nn.Module):
    def __init__(self, num_tokens, width=2):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(num_tokens, width)
        self.inner = torch.nn.Linear(width, width, bias=False)


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A repository whose only commit ships a backbone of four tokens."""
    weights = {
        EMBEDDING: torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [3.0, 7.0]]),
        "inner.weight": torch.eye(2),
    }
    folder = tmp_path / "pocket" / "p" / "model"
    folder.mkdir(parents=True)
    content = save(weights)
    (folder / "model.safetensors").write_bytes(content)
    made(PIECES).save(str(folder / "tokenizer.json"))

    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "ship")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(earlier, "POCKET_FOLDER", folder.parent.parent.relative_to(tmp_path))
    return EarlierBackbone(
        commit=git("rev-parse", "HEAD"), sha256=hashlib.sha256(content).hexdigest()
    )


def test_known_tokens_keep_their_embeddings_and_new_ones_get_the_mean_of_their_pieces():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [3.0, 7.0]])
    moved = moved_embeddings(embeddings, made(PIECES), Vocabulary(["ab", "abc", "a"]))
    assert moved.tolist() == [[5.0, 5.0], [4.0, 6.0], [1.0, 0.0]]


def test_all_weights_are_taken(shipped):
    model = Model(2)
    start_from(model, Vocabulary(["c", "ab"]), "p", shipped)
    assert model.model.embed_tokens.weight.tolist() == [[3.0, 7.0], [5.0, 5.0]]
    assert model.inner.weight.tolist() == torch.eye(2).tolist()


def test_other_weights_other_sizes_and_another_clone_are_refused(shipped):
    vocabulary = Vocabulary(["a"])
    with pytest.raises(ConfigError, match=r"have sha256 .* and 0000"):
        other = shipped.model_copy(update={"sha256": "0" * 64})
        start_from(Model(1), vocabulary, "p", other)
    with pytest.raises(ConfigError, match=r"inner.weight, model.embed_tokens.weight of commit"):
        start_from(Model(1, width=3), vocabulary, "p", shipped)
    with pytest.raises(ConfigError, match=r"this clone has no .* fetch the whole history"):
        unknown = shipped.model_copy(update={"commit": "0" * 40})
        start_from(Model(1), vocabulary, "p", unknown)

"""Starting from an earlier pocket backbone: for new words, not for new skills.

Whoever rewrites a prompt changes what every lesson says, and a backbone that was taught other
words has lost them. What it can do is not lost: reading, copying and looking up do not hang on the
wording. A recipe may therefore start from the files that an earlier commit of this repository
shipped. Their tokens keep their embeddings; a token that is new gets the mean of the embeddings of
the pieces that its text was cut into before.
"""

import hashlib
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor

from blockwise.config.backbones import POCKET_FOLDER
from blockwise.config.pocket import EarlierBackbone
from blockwise.errors import ConfigError
from blockwise.pocket.files import MODEL_FOLDER

WEIGHTS_FILE, TOKENIZER_FILE = "model.safetensors", "tokenizer.json"
EMBEDDING = "model.embed_tokens.weight"


def start_from(model: Any, tokenizer: Any, name: str, earlier: EarlierBackbone) -> None:
    """Give a new model the weights of an earlier one.

    Args:
        model: of the same sizes; its vocabulary may be another.
        tokenizer: the new one.
        name: the backbone's, and its folder's.
        earlier: which commit's files, and the digest of their weights.

    Raises:
        ConfigError: the files are not in this clone, are others, or have other sizes.
    """
    content = _committed(name, earlier.commit, WEIGHTS_FILE)
    found = hashlib.sha256(content).hexdigest()
    if found != earlier.sha256:
        raise ConfigError(
            f"pocket.{name}.starts_from: the weights of commit {earlier.commit} have sha256 "
            f"{found}, and {earlier.sha256} is asked for; mend one of them"
        )
    known = Tokenizer.from_str(_committed(name, earlier.commit, TOKENIZER_FILE).decode())
    weights = load(content)
    weights[EMBEDDING] = moved_embeddings(weights[EMBEDDING], known, tokenizer)
    own = model.state_dict()
    unlike = sorted(key for key, value in weights.items() if own[key].shape != value.shape)
    if unlike:
        raise ConfigError(
            f"pocket.{name}.starts_from: {', '.join(unlike)} of commit {earlier.commit} have other "
            "sizes; give the recipe those of the earlier one, or leave starts_from out"
        )
    model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)


def moved_embeddings(embeddings: Tensor, known: Tokenizer, tokenizer: Any) -> Tensor:
    """Embeddings of a new vocabulary out of those of an earlier one.

    Shapes: (earlier vocabulary, width) to (new vocabulary, width).
    """
    earlier_ids: Mapping[str, int] = known.get_vocab()
    rows = []
    for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        pieces = (
            [earlier_ids[token]]
            if token in earlier_ids
            else known.encode(token, add_special_tokens=False).ids
        )
        rows.append(embeddings[pieces].float().mean(0))
    return torch.stack(rows)


def _committed(name: str, commit: str, file: str) -> bytes:
    path = POCKET_FOLDER / name / MODEL_FOLDER / file
    done = subprocess.run(
        ["git", "show", f"{commit}:{path.as_posix()}"], capture_output=True, check=False
    )
    if done.returncode:
        raise ConfigError(
            f"pocket.{name}.starts_from: this clone has no {path} at commit {commit} "
            f"({done.stderr.decode(errors='replace').strip()}); fetch the whole history "
            "(git fetch --unshallow)"
        )
    return done.stdout

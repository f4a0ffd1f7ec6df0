"""A published model on this machine: made ready once, then loaded by every measurement.

    python -m blockwise.mxfp4.pretrained --config ... --cache ... --folder ...

leaves in the folder the model, its record (`model.json`, written last) and the tokens of the text
(`corpus/`) that the model's own tokenizer makes.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from blockwise.artifacts import read_model, replacing_folder, write_model
from blockwise.config.backbones import GgufModel
from blockwise.config.corpora import HubTokenizer
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.pretrained import Pretrained
from blockwise.errors import ConfigError, run_command
from blockwise.models.gguf_model import convert_gguf, fetch_gguf
from blockwise.models.prepare import CONFIG_FILE, WRITE_FAILURES, folder_model
from blockwise.models.prepared_model import PreparedModel
from blockwise.mxfp4.corpus import TokenCorpus, prepare_corpus
from blockwise.mxfp4.layer_operands import linear_names
from blockwise.mxfp4.selection import study_of

NAME = "mxfp4.pretrained"
RECORD_FILE, MODEL_FOLDER, CORPUS_FOLDER = "model.json", "model", "corpus"


@dataclass(frozen=True)
class PublishedModel:
    """A loaded model, its linear layers that count, and its text."""

    model: nn.Module
    layers: Sequence[str]
    corpus: TokenCorpus
    digest: str  # of the published file, or of the files of a folder

    def loss(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean cross entropy of predicting tokens[:, 1:] from tokens[:, :-1], in nats a token.

        The second is the embedded input: a backward pass that reaches it has passed every layer,
        and no weight needs a gradient for that.

        Shapes: tokens [sequences, length + 1], int64.
        """
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        embedded = embedding(tokens[:, :-1]).detach().requires_grad_()
        logits = self.model(inputs_embeds=embedded, use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        return loss, [embedded]


def prepare(pretrained: Pretrained, folder: Path, cache: Path) -> PreparedModel:
    """Fetch or find the model, convert it where it needs that, and tokenize its text.

    Raises:
        ConfigError: the folder of a path is no model.
        ServerError: no place has the file.
        ArtifactError: a file is not what was asked for, or cannot be written.
        DatasetError: the text is missing, unreadable or too little.
    """
    prepared = _model(pretrained, folder / MODEL_FOLDER)
    tokenizer = HubTokenizer(kind="hub", id=prepared.tokenizer_path)
    prepare_corpus(pretrained.corpus, tokenizer, folder / CORPUS_FOLDER, cache)
    write_model(folder / RECORD_FILE, prepared)
    return prepared


def _model(pretrained: Pretrained, folder: Path) -> PreparedModel:
    source = pretrained.model
    if not isinstance(source, GgufModel):
        if not (source.folder / CONFIG_FILE).is_file():
            raise ConfigError(
                f"{NAME}.model.path: {source.folder} has no {CONFIG_FILE}; name a folder of "
                "Hugging Face model files"
            )
        return folder_model(NAME, "path", source.folder)
    wanted_by = f"{NAME}.model"
    fetched = fetch_gguf(NAME, source, lambda line: print(line, file=sys.stderr), wanted_by)
    with replacing_folder(folder, WRITE_FAILURES) as unfinished:
        convert_gguf(fetched, unfinished)
    return folder_model(NAME, "gguf", folder)


def load(study: MXFP4, folder: Path) -> PublishedModel:
    """Load what `prepare` left, in float32 and with weights that need no gradient.

    Raises:
        ConfigError: the model cannot be loaded, or has no linear layer of the patterns.
        ArtifactError: the folder is not what was prepared.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  # seconds

    assert study.pretrained is not None
    prepared = read_model(folder / RECORD_FILE, PreparedModel)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(prepared.path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load {prepared.path} as a causal language model: {error}. Name another "
            f"model in {NAME}"
        ) from error
    model.requires_grad_(False).to(study.device)  # it comes in evaluation mode
    layers = linear_names(model, study.pretrained.layers)
    if not layers:
        raise ConfigError(
            f"no linear layer of {prepared.path} matches {study.pretrained.layers}; mend "
            f"{NAME}.layers"
        )
    corpus = TokenCorpus.open(folder / CORPUS_FOLDER)
    source = study.pretrained.model
    digest = source.sha256 if isinstance(source, GgufModel) else prepared.digest
    return PublishedModel(model, layers, corpus, digest)


def main() -> None:
    """Command line: make the published model of a profile ready."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.mxfp4.pretrained", description=__doc__
    )
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--cache", type=Path, required=True, help="where `datasets` keeps files")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    pretrained = study_of(arguments.config).pretrained
    if pretrained is None:
        raise ConfigError(f"{arguments.config} names no published model; add {NAME}")
    prepare(pretrained, arguments.folder, arguments.cache)


if __name__ == "__main__":
    run_command(main)

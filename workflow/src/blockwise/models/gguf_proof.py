"""Proof that a converted folder is the model of its GGUF file, kept with the prepared model.

Token ids are the vocabulary's, the chat template is the file's to the byte, a system message
arrives, and the greedy tokens of one fixed prompt say what the weights do.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM

from blockwise.errors import ArtifactError
from blockwise.models.gguf_file import GgufFile
from blockwise.models.prepared_model import GreedyTokens
from blockwise.models.tokenizer import load_tokenizer

SYSTEM = "You answer in one short sentence."
PROMPT = "Name three rivers of Europe."
NUM_GREEDY_TOKENS = 16
DTYPE = torch.bfloat16
CONVERSATION = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT})


class ProvenTexts(NamedTuple):
    """What was held against the file's vocabulary and template."""

    num_vocabulary_tokens: int
    num_respelled_tokens: int
    prompt_ids: list[int]  # of the fixed prompt


def prove_texts(file: GgufFile, folder: Path) -> ProvenTexts:
    """Hold a converted tokenizer and template against their file.

    Raises:
        ArtifactError: they are not the file's, or cannot play a session.
    """
    tokenizer = load_tokenizer(str(folder))
    num_respelled = _check_vocabulary(file, tokenizer)
    if tokenizer.chat_template != file.chat_template:
        raise ArtifactError(
            f"{file.path}: the converted chat template is not the file's; this is a defect of the "
            "conversion, please report it"
        )
    rendered = _check_system_message(file, tokenizer)
    prompt_ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return ProvenTexts(len(file.tokens), num_respelled, prompt_ids)


def _check_vocabulary(file: GgufFile, tokenizer: Any) -> int:
    """Every id is the file's token; returns how many are spelled differently.

    SentencePiece files write a token of nothing but blanks with blanks, the tokenizer with the mark
    that stands for one.
    """
    spelled = [_respelled(token) for token in file.tokens]
    found = tokenizer.convert_ids_to_tokens(list(range(len(spelled))))
    num_respelled = 0
    for index, (token, own) in enumerate(zip(file.tokens, found, strict=True)):
        if own != token and own != spelled[index]:
            raise ArtifactError(
                f"{file.path}: token {index} is {token!r}, and the converted tokenizer has {own!r} "
                "there; its text would become other tokens. Take another file of the model"
            )
        num_respelled += own != token
    if len(tokenizer) != len(spelled):
        raise ArtifactError(
            f"{file.path}: it has {len(spelled)} tokens, and the converted tokenizer "
            f"{len(tokenizer)}; take another file of the model"
        )
    return num_respelled


def _respelled(token: str) -> str:
    return "\u2581" * len(token) if token and not token.strip(" ") else token


def _check_system_message(file: GgufFile, tokenizer: Any) -> str:
    """The rendered prompt, in which the system message must stand."""
    try:
        rendered = str(
            tokenizer.apply_chat_template(
                list(CONVERSATION), tokenize=False, add_generation_prompt=True
            )
        )
        reason = "leaves it out" if SYSTEM not in rendered else None
    except TemplateError as error:
        rendered, reason = "", f"says: {error}"
    if reason is not None:
        raise ArtifactError(
            f"{file.path}: its chat template takes no system message ({reason}), and every session "
            "begins with one. Take a model whose template does"
        )
    return rendered


def greedy_tokens(prompt_ids: list[int], folder: Path) -> GreedyTokens:
    """The first tokens that the converted weights give to the fixed prompt."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE)
    with torch.inference_mode():
        output = model.generate(
            torch.tensor([prompt_ids]),
            attention_mask=torch.ones((1, len(prompt_ids)), dtype=torch.long),
            max_new_tokens=NUM_GREEDY_TOKENS,
            do_sample=False,
        )
    return GreedyTokens(
        system=SYSTEM,
        prompt=PROMPT,
        dtype=str(DTYPE).removeprefix("torch."),
        token_ids=tuple(output[0, len(prompt_ids) :].tolist()),
    )

"""From a GGUF file to the Hugging Face folder that vLLM loads: weights, settings, tokenizer.

Weights are dequantized to bfloat16 and written shard by shard, a few rows at a time: reading the
whole model first, as transformers does, took 2.5 times the finished model's memory. Every tensor of
the file must be wanted by the model and every parameter of the model given by the file; a
converter that leaves one out would serve another model under the same name.

Source: names and layouts of tensors: gguf-py's `TensorNameMap`; the permuted rows of Llama's
queries and keys and Gemma's norms: llama.cpp's convert_hf_to_gguf.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from blockwise.errors import ArtifactError
from blockwise.models.gguf_file import GgufFile

DTYPE = torch.bfloat16  # as checkpoints are published; a server may compute in another
SHARD_BYTES = 2**28  # what is held at once; a larger tensor is a shard of its own
SLICE_ELEMENTS = 2**22  # dequantized at once: 16 MB of float32 and a few times that on the way
TOKENIZER_FILE = "tokenizer.json"
INDEX_FILE = "model.safetensors.index.json"


def convert(file: GgufFile, folder: Path) -> int:
    """Write model and tokenizer into a folder that does not exist yet.

    Args:
        file: a file without refusals.
        folder: where to write; its parent exists.

    Returns:
        The number of parameters.

    Raises:
        ArtifactError: tensors of the file and parameters of the model do not match.
    """
    folder.mkdir(exist_ok=True)
    config = _config_of(file)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPE)  # type: ignore[no-untyped-call]
    sources = _sources(file, model)
    num_parameters = sum(int(tensor.n_elements) for tensor in sources.values())
    _write_weights(file, model.config, sources, folder)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    write_tokenizer(file, folder)
    return num_parameters


def _config_of(file: GgufFile) -> Any:
    """The file's settings as transformers reads them, and what it leaves out."""
    config = AutoConfig.from_pretrained(file.path.parent, gguf_file=file.path.name)
    head_size = file.value(f"{file.architecture}.attention.key_length")
    if head_size is not None:
        config.head_dim = head_size
    config.dtype = DTYPE
    config.name_or_path = ""
    if hasattr(config, "_model_name_or_path"):
        del config._model_name_or_path
    return config


def _sources(file: GgufFile, model: Any) -> dict[str, Any]:
    """Which tensor of the file becomes which parameter of the model, in the file's order."""
    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(
        architectures[file.architecture], model.config.num_hidden_layers
    )
    tied = model.all_tied_weights_keys if model.config.tie_word_embeddings else {}
    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in model.state_dict().items()
        if name not in tied
    }
    parameter_of = {}
    for name in shapes:
        stem, _, suffix = name.rpartition(".")
        parameter_of[f"{names.get_name(stem)}.{suffix}"] = name
    sources, problems = {}, []
    for tensor in file.reader.tensors:
        parameter = parameter_of.pop(tensor.name, None)
        if parameter is None:
            problems.append(f"the model has no place for {tensor.name}")
            continue
        shape = tuple(int(size) for size in reversed(tensor.shape))
        if shape != shapes[parameter]:
            problems.append(f"{tensor.name} has the shape {shape}, not {shapes[parameter]}")
        sources[parameter] = tensor
    problems += [f"the file has no {name}" for name in parameter_of]
    if problems:
        shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        raise ArtifactError(
            f"{file.path} does not fit the {file.architecture} architecture as transformers builds "
            f"it: {shown}. Take another file of the model, or its publisher's own files"
        )
    return sources


def _write_weights(file: GgufFile, config: Any, sources: dict[str, Any], folder: Path) -> None:
    shards = list(_shards(sources))
    index, total = {}, 0
    for number, names in enumerate(shards, start=1):
        shard = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {name: _weights(file, config, sources[name]) for name in names}
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        index.update(dict.fromkeys(names, shard))
        total += sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / INDEX_FILE).write_text(json.dumps(content, indent=1, sort_keys=True))


def _shards(sources: dict[str, Any]) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for name, tensor in sources.items():
        size = int(tensor.n_elements) * DTYPE.itemsize
        if names and held + size > SHARD_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


def _weights(file: GgufFile, config: Any, tensor: Any) -> torch.Tensor:
    """One tensor, dequantized.

    Shapes: (rows, columns) or (rows,), as the model has it.
    """
    shape = tuple(int(size) for size in reversed(tensor.shape))
    weights = torch.empty(shape, dtype=DTYPE)
    rows = max(1, SLICE_ELEMENTS // max(1, weights[0].numel()))
    # Gemma multiplies by one plus its weight, llama.cpp by the sum.
    shift = 1 if file.architecture == "gemma3" and tensor.name.endswith("norm.weight") else 0
    for start in range(0, shape[0], rows):
        values = gguf.dequantize(tensor.data[start : start + rows], tensor.tensor_type)
        weights[start : start + rows] = torch.from_numpy(values - shift if shift else values.copy())
    if file.architecture == "llama" and ".attn_q." in tensor.name:
        return _unpermuted(weights, config.num_attention_heads)
    if file.architecture == "llama" and ".attn_k." in tensor.name:
        return _unpermuted(weights, config.num_key_value_heads)
    return weights


def _unpermuted(weights: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Halves of each head one after the other, where llama.cpp interleaves them."""
    interleaved = weights.reshape(num_heads, weights.shape[0] // num_heads // 2, 2, -1)
    return interleaved.swapaxes(1, 2).reshape(weights.shape).contiguous()


def write_tokenizer(file: GgufFile, folder: Path) -> None:
    """The file's tokenizer and chat template as Hugging Face files."""
    tokenizer = AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)
    if file.value("tokenizer.ggml.pre") == "smollm":
        # transformers knows no such rule: single digits, then GPT-2's.
        # Source: llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    tokenizer.save_pretrained(folder)
    _drop_added_tokens(folder / TOKENIZER_FILE, len(file.tokens))


def _drop_added_tokens(path: Path, num_tokens: int) -> None:
    """Take out special tokens of the tokenizer's class that the vocabulary does not have.

    Their ids would lie behind the model's embeddings.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < num_tokens]
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")

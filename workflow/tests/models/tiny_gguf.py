"""Writes GGUF files of two narrow layers, as llama.cpp's converter lays them out."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM

from blockwise.config.backbones import GgufModel

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + CHAT_TEMPLATE
)
BYTE_LEVEL_TOKENS = ["<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "Ġt", "he"]
SENTENCEPIECE_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>"]
SENTENCEPIECE_TOKENS += ["<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
SENTENCEPIECE_TOKENS += ["\u2581", "  ", "   ", *"abcdefghijklmnopqrstuvwxyz"]
CONTROL, BYTE, NORMAL = 3, 6, 1
HEAD_SIZE = 16
MODEL_TYPES = {"gemma3": "gemma3_text"}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}


@dataclass
class TinyGguf:
    """What to write; tests replace single fields."""

    architecture: str = "llama"
    chat_template: str | None = CHAT_TEMPLATE
    tokenizer: str | None = None  # None: what the architecture usually has
    pre_tokenizer: str = "qwen2"
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32
    raw_dtype: gguf.GGMLQuantizationType | None = None  # said of the output's weights
    extra: dict[str, Any] = field(default_factory=dict)
    left_out: str | None = None
    added: str | None = None
    file_type: gguf.LlamaFileType | None = gguf.LlamaFileType.ALL_F32
    model: Any = None

    def write(self, path: Path) -> GgufModel:
        """Write the file; the model source that names it by its digest."""
        writer = gguf.GGUFWriter(path, self.architecture)
        self._write_settings(writer)
        self._write_tokenizer(writer)
        self.model = self._make_model()
        for name, values in self._tensors().items():
            self._write_tensor(writer, name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        digest = sha256(path.read_bytes()).hexdigest()
        return GgufModel(source="gguf", file=path.name, sha256=digest)

    @property
    def tokens(self) -> list[str]:
        if self.architecture == "gemma3":
            return SENTENCEPIECE_TOKENS
        # Qwen's tokenizer class adds this one where it is missing.
        own = ["<|endoftext|>"] if self.architecture.startswith("qwen") else []
        return [*BYTE_LEVEL_TOKENS, *own]

    def _write_settings(self, writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(SHAPE["max_position_embeddings"])
        writer.add_embedding_length(SHAPE["hidden_size"])
        writer.add_block_count(SHAPE["num_hidden_layers"])
        writer.add_feed_forward_length(SHAPE["intermediate_size"])
        writer.add_head_count(SHAPE["num_attention_heads"])
        writer.add_head_count_kv(SHAPE["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(10000.0)
        writer.add_license("apache-2.0")
        if self.architecture == "llama":
            writer.add_rope_dimension_count(HEAD_SIZE)
        else:
            writer.add_key_length(HEAD_SIZE)
        if self.file_type is not None:
            writer.add_file_type(self.file_type)
        for key, value in self.extra.items():
            writer.add_string(key, value)

    def _write_tokenizer(self, writer: gguf.GGUFWriter) -> None:
        is_sentencepiece = self.architecture == "gemma3"
        writer.add_tokenizer_model(self.tokenizer or ("llama" if is_sentencepiece else "gpt2"))
        writer.add_token_list(self.tokens)
        kinds = [
            BYTE if token.startswith("<0x") else CONTROL if token.endswith("|>") else NORMAL
            for token in self.tokens
        ]
        writer.add_token_types(kinds)
        if is_sentencepiece:
            writer.add_token_scores([-float(index) for index in range(len(self.tokens))])
            writer.add_bos_token_id(2)
            writer.add_unk_token_id(3)
        else:
            writer.add_tokenizer_pre(self.pre_tokenizer)
            writer.add_token_merges(["Ġ t", "h e"])
            writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)

    def _make_model(self) -> Any:
        config = AutoConfig.for_model(
            MODEL_TYPES.get(self.architecture, self.architecture),
            **SHAPE,
            head_dim=HEAD_SIZE,
            vocab_size=len(self.tokens),
            rms_norm_eps=1e-6,
            tie_word_embeddings=self.architecture == "gemma3",
            rope_theta=10000.0,
            pad_token_id=None,
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                values = torch.randn(parameter.shape) / 8
                if "norm" in name:  # sixty-fourths: exact beside one, and in bfloat16
                    values = torch.round(values * 64) / 64
                    values += 0 if self.architecture == "gemma3" else 1
                parameter.copy_(values.bfloat16())
        return model

    def _tensors(self) -> dict[str, torch.Tensor]:
        architecture = next(
            key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture
        )
        names = gguf.get_tensor_name_map(architecture, SHAPE["num_hidden_layers"])
        tensors = {}
        for name, parameter in self.model.named_parameters():
            stem, _, suffix = name.rpartition(".")
            values = parameter.detach()
            if self.architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
                values = interleaved(values)
            if self.architecture == "gemma3" and "norm" in stem:
                values = values + 1
            tensors[f"{names.get_name(stem)}.{suffix}"] = values
        if self.left_out is not None:
            del tensors[self.left_out]
        if self.added is not None:
            tensors[self.added] = torch.ones(HEAD_SIZE // 2)
        return tensors

    def _write_tensor(self, writer: gguf.GGUFWriter, name: str, values: torch.Tensor) -> None:
        array = values.float().numpy()
        if self.raw_dtype is not None and name == "output.weight":
            blocks = gguf.quantize(array, gguf.GGMLQuantizationType.Q4_0)
            size = gguf.GGML_QUANT_SIZES[self.raw_dtype][1]
            raw = blocks.repeat(3, axis=-1)[:, :size].copy()
            writer.add_tensor(name, raw, raw_dtype=self.raw_dtype)
        elif array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            quantized = gguf.quantize(array, self.quantization)
            writer.add_tensor(name, quantized, raw_dtype=self.quantization)


def interleaved(weights: torch.Tensor) -> torch.Tensor:
    """Rows of queries and keys as llama.cpp's converter permutes them."""
    halves = weights.reshape(weights.shape[0] // HEAD_SIZE, 2, HEAD_SIZE // 2, -1)
    return halves.swapaxes(1, 2).reshape(weights.shape)

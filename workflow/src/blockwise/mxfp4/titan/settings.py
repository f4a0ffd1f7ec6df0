"""torchtitan's config of a run: the study's values in torchtitan's words.

Nothing is chosen here that the profile says. What differs from our own trainer: torchtitan's
cosine is one step late, its query, key and value are one GEMM, and on a GPU weights and
activations are bfloat16 in both passes (float32 for the fp32 arm), as in every torchtitan run.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.config.configs import DebugConfig
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import ScaledDotProductAttention
from torchtitan.models.common.config_utils import make_ffn_config, make_gqa_config
from torchtitan.models.llama3 import parallelize_llama
from torchtitan.models.llama3.model import Llama3Model, Llama3TransformerBlock
from torchtitan.protocols.model_spec import ModelSpec

from blockwise.config.mxfp4 import LlamaShape, is_quantized
from blockwise.config.recipes import Precision
from blockwise.errors import ConfigError
from blockwise.mxfp4.corpus import TokenCorpus
from blockwise.mxfp4.model import NORM_EPS, WEIGHT_STD
from blockwise.mxfp4.records import RunSpec
from blockwise.mxfp4.titan.layer import MXFP4LinearConverter
from blockwise.mxfp4.titan.text import CorpusLoader, NoTokenizer

NUM_KEPT_CHECKPOINTS = 2  # torchtitan's least
NORMS = {"weight": nn.init.ones_}


def trainer_settings(
    spec: RunSpec, corpus: TokenCorpus, *, num_processes: int, folder: str, is_compiled: bool
) -> dict[str, Any]:
    """Arguments of torchtitan's `Trainer.Config`.

    Args:
        spec: the run.
        corpus: its text.
        num_processes: that share a batch.
        folder: where checkpoints go.
        is_compiled: compile what quantizes.

    Raises:
        ConfigError: what cannot be shared or converted.
    """
    training, optimizer = spec.training, spec.optimizer
    _check_shares(spec, num_processes)
    text = partial(
        CorpusLoader.Config, corpus=lambda: corpus, training=training, seed=spec.seed
    )  # a call is what torchtitan neither copies nor writes out
    is_float32 = spec.device == "cpu" or spec.recipe.precision == Precision.FP32
    return {
        "model_spec": _model_spec(spec, is_compiled=is_compiled),
        "dump_folder": folder,
        "tokenizer": NoTokenizer.Config(vocab_size=spec.vocab_size),
        "dataloader": text(split="train"),
        "optimizer": default_adamw(
            optimizer.learning_rate,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        ),
        "lr_scheduler": LRSchedulersContainer.Config(
            warmup_steps=optimizer.warmup_steps,
            decay_type="cosine",
            min_lr_factor=optimizer.final_learning_rate_frac,
        ),
        "training": TrainingConfig(
            local_batch_size=training.batch_sequences // num_processes,
            global_batch_size=training.batch_sequences,
            seq_len=spec.model.sequence_tokens,
            max_norm=optimizer.gradient_clip_norm,
            steps=training.num_steps,
            disable_cuda_graphs=True,  # keys of random numbers are written between steps
            mixed_precision_param="float32" if is_float32 else "bfloat16",
        ),
        # One mesh of FSDP2: no model parallelism, so plain tensors in every layer.
        "parallelism": ParallelismConfig(spmd_backend="partial_dtensor"),
        "checkpoint": CheckpointManager.Config(
            enable=True,
            interval=training.checkpoint_every_steps,
            keep_latest_k=NUM_KEPT_CHECKPOINTS,
            last_save_model_only=False,
        ),
        "activation_checkpoint": (
            FullAC.Config(preserve_rng_state=False) if spec.activation_checkpointing else None
        ),
        "debug": DebugConfig(seed=spec.seed, enable_structured_logging=False),
        "loss": ChunkedLossWrapper.Config(
            loss_fn=CrossEntropyLoss.Config(global_vocab_size=spec.vocab_size)
        ),
    }


def validation_text(spec: RunSpec, corpus: TokenCorpus) -> CorpusLoader.Config:
    """The validation text of a run."""
    return CorpusLoader.Config(
        corpus=lambda: corpus, split="validation", training=spec.training, seed=spec.seed
    )


def num_validation_steps(spec: RunSpec) -> int:
    """Passes of one evaluation: as many sequences at a time as a training step has."""
    return spec.training.evaluation_sequences // spec.training.batch_sequences


def _check_shares(spec: RunSpec, num_processes: int) -> None:
    training = spec.training
    for name, value, divisor in (
        ("batch_sequences", training.batch_sequences, num_processes),
        ("evaluation_sequences", training.evaluation_sequences, training.batch_sequences),
    ):
        if value % divisor:
            raise ConfigError(
                f"mxfp4.trainer torchtitan: {name} is {value}, which is no multiple of {divisor} "
                "(processes, or batch_sequences); change one of them"
            )


def _model_spec(spec: RunSpec, *, is_compiled: bool) -> ModelSpec:
    model = llama_config(spec.model, spec.vocab_size)
    if is_quantized(spec.recipe):
        converter = MXFP4LinearConverter.Config(
            recipe=spec.recipe,
            include=spec.converted,
            backend=spec.backend,
            device=spec.device,
            is_compiled=is_compiled,
        )
        model = converter.build().convert(model)
    return ModelSpec(
        name="llama3",
        flavor=f"{spec.model.num_layers} layers of {spec.model.hidden_size}",
        model=model,
        parallelize_fn=parallelize_llama if spec.device == "cuda" else parallelize_on_gloo,
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    )


def parallelize_on_gloo(model: nn.Module, **arguments: Any) -> nn.Module:
    """What torchtitan does, with sums of gradients: gloo knows no other reduction."""
    sharded: nn.Module = parallelize_llama(model, **arguments)
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
    return sharded


def llama_config(shape: LlamaShape, vocab_size: int) -> Any:
    """A Llama of torchtitan of a shape, with weights drawn as `mxfp4.model.initialise` does."""
    size = shape.hidden_size
    inner = _drawn(WEIGHT_STD)
    outer = _drawn(WEIGHT_STD / math.sqrt(2 * shape.num_layers))
    layers = []
    for _ in range(shape.num_layers):
        feed_forward = make_ffn_config(
            dim=size,
            hidden_dim=shape.intermediate_size,
            w1_param_init=inner,
            w2w3_param_init=inner,
        )
        feed_forward.w2.param_init = outer  # the one that adds to the residual stream
        layers.append(
            Llama3TransformerBlock.Config(
                attention_norm=_norm(size),
                ffn_norm=_norm(size),
                attention=make_gqa_config(
                    dim=size,
                    n_heads=shape.num_attention_heads,
                    n_kv_heads=shape.num_key_value_heads,
                    wqkv_param_init=inner,
                    wo_param_init=outer,
                    inner_attention=ScaledDotProductAttention.Config(),
                    fuse_qkv=True,
                    rope=ComplexRoPE.Config(
                        dim=size // shape.num_attention_heads,
                        max_seq_len=shape.sequence_tokens,
                        theta=shape.rope_theta,
                    ),
                ),
                feed_forward=feed_forward,
            )
        )
    return Llama3Model.Config(
        dim=size,
        vocab_size=vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab_size, embedding_dim=size, param_init=inner
        ),
        norm=_norm(size),
        lm_head=Linear.Config(in_features=size, out_features=vocab_size, param_init=inner),
        layers=layers,
    )


def _drawn(std: float) -> dict[str, Callable[..., Any]]:
    return {"weight": partial(nn.init.normal_, std=std)}


def _norm(size: int) -> Any:
    return RMSNorm.Config(normalized_shape=size, eps=NORM_EPS, param_init=NORMS)

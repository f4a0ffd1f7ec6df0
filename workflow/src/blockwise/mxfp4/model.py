"""The Llama that is trained: one plain model, the same for every arm of the study.

It is written out here because the study needs its linear layers one by one, under names that a
pattern of the configuration can choose. All that is quantized is an `nn.Linear` below `layers`;
embedding, norms, attention products and head stay as they are. Positions are computed in every
forward pass, which costs next to nothing: the model has no state but its parameters, so that it
can be moved, sharded and copied without thought.

Shapes: B batch, S sequence, D hidden, V vocabulary, N heads, K key-value heads,
H head size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from blockwise.config.mxfp4 import LlamaShape

NORM_EPS = 1e-5  # of Llama 2 and 3
WEIGHT_STD = 0.02  # Llama's initializer_range
RESIDUAL_OUTPUTS = ("attention.output.weight", "mlp.down.weight")
"""Projections that add to the residual stream: two a layer."""
LOSS_TOKENS = 4096  # logits at a time; of 128,256 words they are 2.1 GB


class Llama(nn.Module):
    """A causal language model: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    Args:
        shape: its sizes.
        vocab_size: words.
        activation_checkpointing: keep each layer's input only, and compute the rest, and the
            logits, again in the backward pass.
    """

    def __init__(
        self, shape: LlamaShape, vocab_size: int, *, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.shape = shape
        self.activation_checkpointing = activation_checkpointing
        self.embedding = nn.Embedding(vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(
            Layer(shape, activation_checkpointing=activation_checkpointing)
            for _ in range(shape.num_layers)
        )
        self.norm = nn.RMSNorm(shape.hidden_size, eps=NORM_EPS)
        self.head = nn.Linear(shape.hidden_size, vocab_size, bias=False)

    def forward(self, tokens: Tensor, *, with_head: bool = True) -> Tensor:
        """Logits of the next token at every position, or what the head makes them of.

        Shapes: tokens [B, S], int64; logits [B, S, V]; without the head [B, S, D].
        """
        head_size = self.shape.hidden_size // self.shape.num_attention_heads
        cos, sin = rotary_factors(tokens.shape[1], head_size, self.shape.rope_theta, tokens.device)
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        output: Tensor = self.norm(x)
        if with_head:
            output = self.head(output)
        return output

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross entropy of predicting tokens[:, 1:] from tokens[:, :-1].

        Shapes: tokens [B, S + 1], int64; the loss is a float32 scalar.
        Units: nats a token.
        """
        with_head = not self.activation_checkpointing
        output = self(tokens[:, :-1], with_head=with_head)  # not `forward`: sharding hooks the call
        x, targets = output.flatten(0, 1), tokens[:, 1:].flatten()
        if with_head:
            return functional.cross_entropy(x.float(), targets)
        parts = zip(x.split(LOSS_TOKENS), targets.split(LOSS_TOKENS), strict=True)
        losses = [recomputed(self._summed_loss, *part) for part in parts]
        return torch.stack(losses).sum() / len(targets)

    def _summed_loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.head(x).float(), targets, reduction="sum")


class Layer(nn.Module):
    """Attention and MLP, each on the normalised residual stream and added to it."""

    def __init__(self, shape: LlamaShape, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.attention_norm = nn.RMSNorm(shape.hidden_size, eps=NORM_EPS)
        self.attention = Attention(shape)
        self.mlp_norm = nn.RMSNorm(shape.hidden_size, eps=NORM_EPS)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The residual stream after the layer, [B, S, D]."""
        if self.activation_checkpointing:
            return recomputed(self._added, x, cos, sin)
        return self._added(x, cos, sin)

    def _added(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        output: Tensor = x + self.mlp(self.mlp_norm(x))
        return output


class Attention(nn.Module):
    """Causal attention whose heads share keys and values in groups."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.head_size = shape.hidden_size // shape.num_attention_heads
        self.is_grouped = shape.num_key_value_heads != shape.num_attention_heads
        key_value_size = self.head_size * shape.num_key_value_heads
        self.query = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.key = nn.Linear(shape.hidden_size, key_value_size, bias=False)
        self.value = nn.Linear(shape.hidden_size, key_value_size, bias=False)
        self.output = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """What attention adds to the residual stream, [B, S, D]."""
        query = rotate(self._heads(self.query(x)), cos, sin)  # [B, N, S, H]
        key = rotate(self._heads(self.key(x)), cos, sin)  # [B, K, S, H]
        value = self._heads(self.value(x))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=self.is_grouped
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def _heads(self, x: Tensor) -> Tensor:
        """[B, S, heads x H] -> [B, heads, S, H]."""
        return x.view(*x.shape[:-1], -1, self.head_size).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What the MLP adds to the residual stream, [B, S, D]."""
        output: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return output


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The function's value, of which only the inputs are kept for the backward pass.

    What is computed again is the same: random numbers here follow from keys that stay what they
    are for a whole micro-batch (`mxfp4.conversion`).
    """
    result: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result


def rotary_factors(
    num_positions: int, head_size: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles.

    Shapes: two of [S, H / 2], float32.
    Source: Su et al., RoFormer, arXiv 2104.09864, section 3.2.2.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    positions = torch.arange(num_positions, dtype=torch.float32, device=device)
    angles = torch.outer(positions, theta**-exponents)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of features by the angles of their positions.

    Llama's convention: feature i pairs with feature i + H / 2. The product is taken in float32
    and returned in the type of `x`.

    Shapes: x [B, heads, S, H]; cos and sin [S, H / 2].
    """
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype)


def initialise(model: Llama, seed: int) -> None:
    """Set all weights, the same for the same seed on every device.

    Matrices are drawn from N(0, 0.02^2) in the order of their names; projections that add to the
    residual stream get the standard deviation divided by sqrt(2 num_layers), so that the stream
    keeps its size with depth. Norms start at one.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std = WEIGHT_STD / math.sqrt(2 * model.shape.num_layers)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            std = residual_std if name.endswith(RESIDUAL_OUTPUTS) else WEIGHT_STD
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))

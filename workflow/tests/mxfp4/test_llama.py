"""The Llama against transformers' own, and what training needs from it."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from blockwise.config.mxfp4 import LlamaShape
from blockwise.config.recipes import Dgrad, Fprop, Recipe, Wgrad
from blockwise.mxfp4 import MXFP4Linear, convert
from blockwise.mxfp4.model import Llama, initialise

VOCAB_SIZE = 96
TRANSFORMERS_NAMES = {
    "embedding": "model.embed_tokens",
    "layers": "model.layers",
    "norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "attention": "self_attn",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}


def shape(**changes):
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sequence_tokens": 32,
    }
    return LlamaShape(**{**sizes, **changes})


def llama(seed=0, **changes):
    model = Llama(shape(**changes), VOCAB_SIZE)
    initialise(model, seed)
    return model


def tokens(num_sequences=2, num_tokens=33, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, (num_sequences, num_tokens), generator=generator)


def transformers_llama(model):
    sizes = model.shape
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_attention_heads,
        num_key_value_heads=sizes.num_key_value_heads,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        tie_word_embeddings=False,
    )
    theirs = LlamaForCausalLM(config).eval()
    renamed = {
        ".".join(TRANSFORMERS_NAMES.get(part, part) for part in name.split(".")): weight
        for name, weight in model.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    return theirs


@pytest.mark.parametrize("num_key_value_heads", [4, 2])
@pytest.mark.parametrize("rope_theta", [10000.0, 500000.0])
def test_logits_are_those_of_transformers(num_key_value_heads, rope_theta):
    model = llama(num_key_value_heads=num_key_value_heads, rope_theta=rope_theta)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # logits of order one, and norms that are not one
        theirs = transformers_llama(model)(tokens()).logits
        assert theirs.abs().max() > 1
        torch.testing.assert_close(model(tokens()), theirs, rtol=1e-5, atol=1e-5)


def test_no_position_sees_a_later_token():
    model = llama()
    changed = tokens()
    changed[:, 20:] = (changed[:, 20:] + 1) % VOCAB_SIZE
    with torch.no_grad():
        before, after = model(tokens()), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, 20:], after[:, 20:], atol=1e-3)


def test_loss_is_the_mean_cross_entropy_of_the_next_token():
    model = llama()
    batch = tokens()
    with torch.no_grad():
        log_probabilities = model(batch[:, :-1]).double().log_softmax(-1)
        picked = log_probabilities.gather(-1, batch[:, 1:, None])
        assert model.loss(batch).item() == pytest.approx(-picked.mean().item(), abs=1e-5)
        assert model.loss(batch).item() == pytest.approx(math.log(VOCAB_SIZE), abs=0.2)


def test_loss_is_float32_under_autocast():
    model = llama()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(tokens()).dtype == torch.bfloat16
        loss = model.loss(tokens())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(model.loss(tokens()).item(), abs=0.02)


def test_loss_calls_the_hooks_that_sharding_sets():
    model, seen = llama(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model.loss(tokens())
    assert seen == [(2, 32)]


def test_same_seed_gives_the_same_weights_whatever_was_drawn_before():
    first = llama(seed=5)
    torch.rand(7)
    second = llama(seed=5)
    for (name, one), (_, other) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    assert not torch.equal(first.head.weight, llama(seed=6).head.weight)


def test_weights_have_the_size_that_their_place_asks_for():
    model = llama(hidden_size=256, intermediate_size=512, num_layers=2)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == 1).all(), name
            continue
        is_residual = name.endswith(("attention.output.weight", "mlp.down.weight"))
        expected = 0.02 / math.sqrt(2 * 2) if is_residual else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
        assert abs(parameter.mean().item()) < 0.05 * expected, name


def test_number_of_parameters():
    hidden, intermediate, layers, key_value_size = 64, 96, 2, 32
    attention = 2 * hidden * hidden + 2 * hidden * key_value_size
    in_a_layer = attention + 3 * hidden * intermediate + 2 * hidden
    expected = layers * in_a_layer + hidden + 2 * VOCAB_SIZE * hidden
    assert sum(parameter.numel() for parameter in llama().parameters()) == expected


def test_converted_layers_train():
    model = llama()
    recipe = Recipe(fprop=Fprop(), dgrad=Dgrad(), wgrad=Wgrad())
    names = list(convert(model, recipe, include=["layers.*"]).layers)
    assert len(names) == 2 * 7
    assert not isinstance(model.head, MXFP4Linear)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = model.loss(tokens())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_conversion_keeps_weights_and_initialise_reaches_converted_layers():
    plain, converted = llama(seed=3), llama(seed=0)
    convert(converted, Recipe(precision="bf16"), include=["layers.*"])
    initialise(converted, 3)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, converted.get_parameter(name)), name

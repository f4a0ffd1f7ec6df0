"""Models, trainers and wrappers of others: transformers, accelerate, compile, DDP, FSDP2, TP."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from blockwise.errors import ConfigError
from blockwise.mxfp4 import check_conversion, convert

transformers = pytest.importorskip("transformers", reason="needs transformers: a model of others")

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
RANDOM = "F+D+W+SR(D:dy,W:dy)+RHT16(W)"


def llama(**changes):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        **{"num_hidden_layers": 2, **changes},
    )
    return transformers.LlamaForCausalLM(config)


def batch(num_sequences=2, num_tokens=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 96, (num_sequences, num_tokens), generator=generator)
    return {"input_ids": tokens, "labels": tokens, "use_cache": False}


def gradients(model, mx, step=0, micro_batch=0, called=None, **inputs):
    model.zero_grad()
    with mx.step(step, micro_batch):
        (model if called is None else called)(**(inputs or batch())).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(one, other):
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- transformers --------------------------------------------------------------------------


def test_a_llama_of_transformers_trains():
    model = llama()
    mx = convert(model, RANDOM, exclude=["lm_head"])
    assert mx.coverage.num_layers == 14
    assert model.lm_head.weight is model.model.embed_tokens.weight
    check_conversion(mx, lambda: model(**batch()).loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(8):
        with mx.step(step):
            loss = model(**batch()).loss
            loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_rounds_as_the_first_pass_did(use_reentrant):
    model = llama()
    mx = convert(model, RANDOM, exclude=["lm_head"])
    expected = gradients(model, mx, 3)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    model.train()
    again = gradients(model, mx, 3)
    for name, gradient in expected.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)


def test_a_cold_compile_is_one_graph_and_the_same_numbers():
    """Nothing runs before it, and another step or micro-batch compiles nothing again."""
    torch._dynamo.reset()
    model = llama(num_hidden_layers=1)
    mx = convert(model, RANDOM, include=["*.up_proj"], is_compiled=True)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    results = [gradients(model, mx, step, called=compiled) for step in range(3)]
    assert counter.frame_count == 1
    mx.set_recipe(RANDOM)
    for step, result in enumerate(results):
        assert_same(gradients(model, mx, step), result)


def test_a_step_inside_a_compiled_function_is_refused():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(32, 32))
    mx = convert(model, RANDOM)

    def training_step(x):
        with mx.step(0):
            return model(x).sum()

    with pytest.raises(Exception, match=r"mx\.step inside a compiled function"):
        torch.compile(training_step, backend="eager", fullgraph=True)(torch.ones(32, 32))


def test_autocast_trains_in_bfloat16():
    model = llama()
    mx = convert(model, RANDOM, exclude=["lm_head"])
    with mx.step(0), torch.autocast("cpu", torch.bfloat16):
        output = model(**batch())
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in model.parameters())


def test_gpt2s_transposed_layers_are_refused_by_name():
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=64, vocab_size=96)
    with pytest.raises(ConfigError, match=r"not a plain nn\.Linear: .*c_attn \(Conv1D\)"):
        convert(transformers.GPT2LMHeadModel(config), "F+D+W", exclude=["lm_head"])


def test_the_experts_of_mixtral_are_warned_of():
    config = transformers.MixtralConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
    )
    with pytest.warns(UserWarning, match=r"left in high precision.*experts"):
        mx = convert(transformers.MixtralForCausalLM(config), "F+D+W", include=["model.layers.*"])
    assert mx.coverage.parameters_frac < 0.3


def python_of(path, heading):
    """The first block of Python below a heading."""
    text = (ROOT / path).read_text(encoding="utf-8").split(heading, 1)[1]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def test_the_readmes_eight_lines_run_as_they_stand():
    lines = python_of("README.md", "In a model of your own, eight lines")
    assert len([line for line in lines.splitlines() if line.strip()]) <= 9
    model = llama()
    shared = {
        "model": model,
        "batches": [batch(seed=seed, num_tokens=33) for seed in range(2)],
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    exec(compile(lines, "README.md", "exec"), shared)
    assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, before)
    assert shared["mx"].coverage.num_layers == 14


def callback_of(mx):
    """The callback of the documentation."""
    shared = {}
    program = python_of("workflow/docs/training.md", "### transformers' Trainer")
    exec(compile(program.split("mx = convert")[0], "training.md", "exec"), shared)
    return shared["MXFP4Callback"](mx)


def test_the_documented_callback_gives_each_micro_batch_its_key():
    """The calls that Trainer makes, in its order; Trainer itself needs accelerate."""
    model = llama()
    mx = convert(model, RANDOM, exclude=["lm_head"], tokens="pad")
    callback, keys = callback_of(mx), []
    state = SimpleNamespace(global_step=0)

    def micro_batch():
        keys.append(tuple(int(layer.key) for layer in mx.layers.values()))
        model(**batch()).loss.backward()

    for step in range(2):
        state.global_step = step
        callback.on_step_begin(None, state, None)
        micro_batch()
        callback.on_substep_end(None, state, None)
        micro_batch()
        callback.on_step_end(None, SimpleNamespace(global_step=step + 1), None)
        with torch.no_grad():
            assert "recipe=exact" in repr(model)  # evaluation is without FP4
    callback.on_train_end(None, state, None)
    assert "recipe=exact" not in repr(model)
    assert len(set(keys)) == 4
    with mx.step(1, 1):
        assert tuple(int(layer.key) for layer in mx.layers.values()) == keys[3]


def test_the_documented_trainer_trains(tmp_path):
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: in no lock")
    model = llama()
    data = [
        {"input_ids": one["input_ids"][0], "labels": one["labels"][0]}
        for one in (batch(1, 33, seed) for seed in range(9))
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        eval_strategy="epoch",
        report_to=[],
        use_cpu=True,
        learning_rate=1e-2,
    )
    shared = {"model": model, "arguments": arguments, "data": data, "held_out": data[:2]}
    program = python_of("workflow/docs/training.md", "### transformers' Trainer")
    exec(compile(program, "training.md", "exec"), shared)
    losses = [one["eval_loss"] for one in shared["trainer"].state.log_history if "eval_loss" in one]
    assert losses[1] < losses[0]


# --- several processes ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_two():
    """What two processes under torchrun print."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(FOLDER)])}
    done = subprocess.run(
        [sys.executable, *launch, str(FOLDER / "wrapped.py")],
        capture_output=True,
        text=True,
        timeout=280,
        env={**environment, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "what",
    [
        "DDP with its default broadcast_buffers keeps the ranks' own keys",
        "DDP averages the gradients of both ranks",
        "FSDP2 gives the gradients of both ranks",
        "FSDP2 with recomputation gives the same gradients",
        "a checkpoint of FSDP2 is loaded into a plain model",
        "tensor parallelism gives the plain gradients",
        "tensor parallelism with random numbers is refused",
    ],
)
def test_two_processes(of_two, what):
    assert f"{what}: ok" in of_two

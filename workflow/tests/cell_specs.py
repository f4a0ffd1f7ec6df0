"""One complete cell specification, for tests to vary."""

from blockwise.compaction.cell_spec import CellSpec

SPEC = CellSpec(
    model_digest="m",
    engine={
        "kind": "vllm",
        "packages": {"vllm": "0.32.0"},
        "context_window_tokens": 8192,
        "gpus": 0,
        "flags": {"dtype": "float32"},
        "environment": {},
    },
    request={"form": "chat", "temperature": 0.0},
    protocol="immediate",
    dataset_format="hotpotqa",
    session_id="s-000",
    session_digest="d",
    layout="target_block",
    block_size_tokens=512,
    boundary="turn",
    last_turns=0,
    prompt="Summarise.",
    block_prompts={},
    tau_tokens=2048,
    history_tokens=None,
    transcript="fixed",
    volume_mode="forced",
    volume_tokens=128,
    answer_tokens=16,
    asks_truncated=False,
    max_concurrent_workers=None,
    num_bystanders=0,
    seed=0,
    repeat=0,
    server_start=0,
    code_digest="c",
)


def cell(**changes):
    """The specification with some of its ingredients replaced."""
    return CellSpec.model_validate({**SPEC.model_dump(), **changes})

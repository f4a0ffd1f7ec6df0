"""A tiny model with its own tokenizer and a text: a published model that tests measure on."""

from pathlib import Path

from blockwise.config.backbones import RandomModel
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.recipes import Recipe
from blockwise.models.random_backbone import make_random_backbone

RECIPE = RandomModel(
    source="random",
    hidden_size=64,
    intermediate_size=96,
    num_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    vocab_size=512,
)
LINEARS = 14  # seven of each of two decoder layers
RECIPES = [
    {"precision": "fp32"},
    {"precision": "fp8"},
    {"precision": "fp32-reordered"},
    {"wgrad": {}},
    {"wgrad": {"x": {"centred": True}}},
    {"wgrad": {"rotation": {"kind": "rht"}}},
    {"wgrad": {"rotation": {"kind": "dht"}}},
    {"fprop": {}, "dgrad": {}, "wgrad": {}},
    {"fprop": {}, "dgrad": {}, "wgrad": {"dy": {"rounding": "sr"}}},
    {"fprop": {}},
]
ARMS = {one.name: one for one in map(Recipe.model_validate, RECIPES)}
LAYER_ERRORS = {
    "study": "mxfp4_layer_errors",
    "arms": ["F+D+W", "W+RHT16(W)", "W+DHT16(W)", "fp8"],
    "ratios": [["W+DHT16(W)", "W+RHT16(W)"]],
    "num_batches": 3,
    "num_parts": 2,
}
DESCENT = {
    "study": "mxfp4_descent",
    "baselines": ["fp32"],
    "references": ["W+RHT16(W)"],
    "arms": ["fp32-reordered", "W", "W+M(W:x)", "W+DHT16(W)", "F", "F+D+W", "F+D+W+SR(W:dy)"],
    "starts": [0, 1],
    "num_micro_batches": 3,
    "evaluation_sequences": 2,
    "step_norm_frac": 1e-3,
    "signed_step_frac": 1e-3,
}


def make_model(folder: Path) -> Path:
    """Model files."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_random_backbone(RECIPE, 512, folder, with_weights=True)
    return folder


def make_text(folder: Path) -> Path:
    """Two files that differ in every line."""
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        lines = [f"{name} has {number} of {number * 7919 % 1009}.\n" for number in range(400)]
        (folder / f"{name}.txt").write_text("".join(lines))
    return folder


def pretrained(folder: Path) -> dict[str, object]:
    """The section of a configuration; makes what it names."""
    return {
        "model": {"source": "path", "path": str(make_model(folder / "published"))},
        "num_parameters": 5e4,
        "corpus": {"kind": "path", "folder": str(make_text(folder / "text"))},
        "sequence_tokens": 32,
        "caption": "a tiny model",
    }


def study(folder: Path, **experiments: object) -> MXFP4:
    """A study of these experiments on a model in the folder."""
    return MXFP4.model_validate(
        {
            "model": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "sequence_tokens": 32,
            },
            "corpus": {"kind": "stdlib"},
            "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
            "pretrained": pretrained(folder),
            "compiled": False,
            "arms": {name: one.model_dump(mode="json") for name, one in ARMS.items()},
            "experiments": experiments or {"errors": LAYER_ERRORS, "descent": DESCENT},
            "caption": "tests",
        }
    )

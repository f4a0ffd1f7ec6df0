"""Made-up measurements on a published model: complete records that can be checked by hand."""

from blockwise.config.mxfp4 import MXFP4
from blockwise.mxfp4.records import (
    DescentOfArm,
    DescentOutput,
    DescentSpec,
    DescentStart,
    Diagnostics,
    LayerOperand,
)
from blockwise.tables.inputs import TableInputs
from training_records import ARMS, ORIGIN, SR, error_statistics

RHT, DHT = "F+D+W+RHT16(W)", "F+D+W+DHT16(W)"
KINDS = ("self_attn.v_proj", "mlp.up_proj")
DEPTHS = (0, 1, 2)
LAYERS = [f"model.layers.{depth}.{kind}" for depth in DEPTHS for kind in KINDS]
RECIPES = {
    **{name: one.model_dump(mode="json") for name, one in ARMS.items()},
    "fp32-reordered": {"precision": "fp32-reordered"},
    "W+SR(W:dy)": {"wgrad": {"dy": SR}},
}


def settings(num_starts: int = 6) -> MXFP4:
    """A study with errors and a descent."""
    return MXFP4.model_validate(
        {
            "model": {
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "sequence_tokens": 32,
            },
            "corpus": {"kind": "stdlib"},
            "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
            "pretrained": {
                "model": {"source": "path", "path": "somewhere"},
                "num_parameters": 1.35e8,
                "corpus": {"kind": "stdlib_docs"},
                "caption": "a model from a 4-bit file",
            },
            "arms": RECIPES,
            "experiments": {
                "errors": {
                    "study": "mxfp4_layer_errors",
                    "arms": ["F+D+W", RHT, DHT, "W", "fp8"],
                    "ratios": [[DHT, RHT], ["W", "F+D+W"]],
                    "num_batches": 8,
                    "num_parts": 2,
                },
                "descent": {
                    "study": "mxfp4_descent",
                    "baselines": ["fp32", "fp8"],
                    "references": ["W"],
                    "arms": ["fp32-reordered", "W+SR(W:dy)", "F"],
                    "starts": list(range(num_starts)),
                    "num_micro_batches": 16,
                    "evaluation_sequences": 4,
                    "step_norm_frac": 4e-5,
                    "signed_step_frac": 3e-4,
                },
            },
            "caption": "emulated",
        }
    )


def mean_frac(layer: str) -> float:
    """Of x over tokens: grows from layer to layer."""
    return 0.1 + 0.1 * LAYERS.index(layer)


def error_of(arm: str, gemm: str, layer: str) -> float:
    """DHT over RHT in Wgrad: 1 in the first layer, and more as the mean grows; else 1."""
    base = {"fp8": 0.03, "F+D+W": 0.2, "W": 0.2, RHT: 0.1, DHT: 0.1}[arm]
    base *= {"F": 1.25, "D": 1.1, "W": 1.0}[gemm]
    return base * (1 + LAYERS.index(layer) / 10) if (arm, gemm) == (DHT, "W") else base


def layer_errors(study: MXFP4) -> list[Diagnostics]:
    """Both parts of the experiment `errors`, the second first."""
    experiment = study.experiments["errors"]
    parts = []
    for layers in (LAYERS[3:], LAYERS[:3]):
        errors = [
            error_statistics(
                arm,
                gemm,
                layer,
                experiment="errors",
                step=0,
                relative_error=error_of(arm, gemm, layer),
            )
            for layer in layers
            for gemm in "FDW"
            for arm in experiment.arms
            if arm == "fp8" or gemm in study.arms[arm].gemms
        ]
        operands = [
            LayerOperand(
                experiment="errors",
                step=0,
                layer=layer,
                operand=operand,
                kurtosis=70.0,
                mean_over_rows_frac=mean_frac(layer) if operand == "x" else 0.01,
                mean_over_columns_frac=0.02,
                row_outlier=2.0,
                column_outlier=9.0,
            )
            for layer in layers
            for operand in ("x", "w", "dy")
        ]
        parts.append(
            Diagnostics(
                experiment="errors",
                num_batches=8,
                errors=errors,
                operands=operands,
                origin=ORIGIN,
            )
        )
    return parts


def gain_of(arm: str, start: int) -> float:
    """What a step of equal length gains."""
    share = {"fp32": 1.0, "fp8": 0.5, "fp32-reordered": 1.0, "W": 0.9, "F": 0.25}
    return (0.04 + 0.01 * start) * (share.get(arm, 0.8) + start / 1000 * (arm != "fp32"))


def descents(study: MXFP4, starts=None) -> list[DescentOutput]:
    """Starts of the experiment `descent`, all of them unless said."""
    experiment = study.experiments["descent"]
    chosen = experiment.starts if starts is None else starts
    return [DescentOutput(experiment="descent", start=_start(study, one)) for one in chosen]


def _start(study: MXFP4, start: int) -> DescentStart:
    experiment = study.experiments["descent"]
    spec = DescentSpec(
        measurement=1,
        model_digest="m",
        corpus_digest="c",
        layers=["model.layers.*"],
        sequence_tokens=512,
        num_micro_batches=16,
        micro_batch_sequences=1,
        evaluation_sequences=4,
        num_starts=len(experiment.starts),
        step_norm_frac=4e-5,
        signed_step_frac=3e-4,
        start=start,
        recipes=[study.arms[arm] for arm in experiment.all_arms()],
    )
    arms = {
        arm: DescentOfArm(
            train_loss=2.8,
            gradient_norm=1.4,
            cosine=1.0 if arm.startswith("fp32") else 0.9,
            stepped_loss=3.0 - gain_of(arm, start),
            signed_loss=3.0 - gain_of(arm, start) / 2,
        )
        for arm in experiment.all_arms()
    }
    return DescentStart(
        key=spec.key,
        spec=spec,
        num_layers=len(LAYERS),
        num_moved_weights=1000,
        held_out_loss=3.0,
        arms=arms,
        origin=ORIGIN,
    )


def inputs(study: MXFP4 | None = None) -> TableInputs:
    """What all tables of a published model are made from."""
    study = study or settings()
    return TableInputs(mxfp4=study, layer_errors=layer_errors(study), descents=descents(study))

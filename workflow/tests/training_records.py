"""Made-up training runs and measurements: small, complete records that can be checked by hand."""

from pathlib import Path

from blockwise.artifacts import digest, write_model, write_sealed
from blockwise.config.load import load_profile
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.recipes import Recipe
from blockwise.mxfp4.records import (
    ErrorStatistics,
    Evaluation,
    Origin,
    RunSpec,
    TrainingBatch,
    TrainingRun,
)
from blockwise.tables.inputs import LoadedRun, TableInputs

PROJECT_FOLDER = Path(__file__).parents[2]
CAPTION = "1M parameters on source text: no claim about large models"
STEP_TOKENS = 256
SR, SR34, RCEIL = {"rounding": "sr"}, {"rounding": "sr34"}, {"scale_rule": "rceil"}
DHT16, RHT16 = {"kind": "dht", "size": 16}, {"kind": "rht", "size": 16}
FD = {"fprop": {}, "dgrad": {}}
RECIPES = [
    *({"precision": precision} for precision in ("fp32", "bf16", "fp8")),
    {"fprop": {}},
    FD,
    {**FD, "wgrad": {}},
    {**FD, "wgrad": {"dy": SR}},
    {**FD, "wgrad": {"dy": SR34}},
    {**FD, "wgrad": {"rotation": DHT16}},
    {**FD, "wgrad": {"rotation": RHT16}},
    {"wgrad": {}},
    {"wgrad": {"dy": SR | RCEIL}},
    {"wgrad": {"rotation": DHT16}},
]
ARMS = {one.name: one for one in map(Recipe.model_validate, RECIPES)}

ORIGIN = Origin(
    commit="c" * 40,
    dirty=False,
    packages={"python": "3.11"},
    host="host",
    cpu="cpu",
    device="cpu",
    command="python -m blockwise",
    started_at="2026-01-01T00:00:00+00:00",
)


def training(**changes):
    return {
        "num_steps": 20,
        "batch_sequences": 4,
        "evaluate_every_steps": 10,
        "evaluation_sequences": 4,
        "checkpoint_every_steps": 10,
        **changes,
    }


def ladder(arms, baselines=("fp8",), seeds=(0,), **changes):
    return {
        "study": "mxfp4_ladder",
        "arms": list(arms),
        "baselines": list(baselines),
        "seeds": list(seeds),
        "target_step": 10,
        "training": training(),
        **changes,
    }


def interventions(arms, baselines=("fp32",), seeds=(0,), **changes):
    return {
        "study": "mxfp4_interventions",
        "arms": list(arms),
        "baselines": list(baselines),
        "seeds": list(seeds),
        "training": training(num_repeated_batches=2),
        **changes,
    }


def study(**experiments):
    return MXFP4.model_validate(
        {
            "model": {
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "sequence_tokens": 64,
            },
            "corpus": {"kind": "stdlib"},
            "optimizer": {"learning_rate": 0.001, "warmup_steps": 2},
            "arms": {arm: recipe.model_dump(mode="json") for arm, recipe in ARMS.items()},
            "experiments": experiments,
            "caption": CAPTION,
        }
    )


def run(settings, experiment, arm, losses=(3.0, 2.0, 1.0), seed=0, **changes):
    """A run of one arm of an experiment.

    Its validation losses, both kinds, are evenly spaced over its steps; its training losses are
    those of `train_losses`, or 2 in every step.
    """
    told = changes.pop("spec", {})
    entry = settings.experiments[experiment]
    num_steps = entry.training.num_steps
    spec = RunSpec(
        **{
            "model": settings.model,
            "vocab_size": 256,
            "corpus_digest": "corpus",
            "tokenizer": "bytes",
            "optimizer": settings.optimizer,
            "training": entry.training,
            "recipe": ARMS[arm],
            "converted": settings.converted,
            "backend": "emulated",
            "device": "cpu",
            "num_processes": 1,
            "activation_checkpointing": False,
            "trainer": "own",
            "seed": seed,
            "code_digest": "code",
            "torch_version": "2.13.0",
            **told,
        }
    )
    steps = [index * num_steps // (len(losses) - 1) for index in range(len(losses))]
    values = {
        "key": digest([spec.model_dump(mode="json")]),
        "spec": spec,
        "num_parameters": 1000,
        "num_converted_layers": 14,
        "tokens_per_step": STEP_TOKENS,
        "status": "finished",
        "diverged_at_step": None,
        "divergence": None,
        "train_losses": [2.0] * num_steps,
        "gradient_norms": [0.5] * num_steps,
        "evaluations": [
            Evaluation(step=step, quantized_loss=loss, unquantized_loss=loss)
            for step, loss in zip(steps, losses, strict=True)
        ],
        "num_resumes": 0,
        "train_s": 4.0,
        "origin": ORIGIN,
    }
    return LoadedRun(experiment, arm, TrainingRun(**{**values, **changes}))


def diverged(settings, experiment, arm, seed=0, step=5, **changes):
    return run(
        settings,
        experiment,
        arm,
        seed=seed,
        status="diverged",
        diverged_at_step=step,
        divergence="the loss is nan and the gradient norm nan",
        train_losses=[2.0] * step,
        evaluations=[Evaluation(step=0, quantized_loss=3.0, unquantized_loss=3.0)],
        **changes,
    )


def inputs_of(settings, runs=(), **measured):
    return TableInputs(mxfp4=settings, runs=list(runs), **measured)


def error_statistics(arm="W", gemm="W", layer="layers.0.mlp.up", **changes):
    values = {
        "experiment": "d",
        "arm": arm,
        "step": 10,
        "layer": layer,
        "gemm": gemm,
        "relative_error": 0.1,
        "systematic_error": 0.05,
        "cosine": 0.99,
        "shrinkage": 0.01,
        "underflow_frac": [0.02, 0.03],
        "saturation_frac": [0.0, None],
        "kurtosis": [3.0, 4.0],
        "gradient_to_noise": 8.0 if gemm == "W" else None,
    }
    return ErrorStatistics(**{**values, **changes})


def store_runs(folder: Path, runs, name=None):
    """Write runs as a real store and one batch an experiment and seed; return batches and store."""
    store = folder / "cells"
    batches = {}
    for one in runs:
        path = store / "training_runs" / one.run.key[:2] / f"{one.run.key}.json"
        write_sealed(path, one.run)
        keys = batches.setdefault((one.experiment, one.run.spec.seed), {})
        keys[one.arm] = one.run.key
    paths = []
    for (experiment, seed), keys in batches.items():
        paths.append(folder / (name or experiment) / f"{seed}.json")
        write_model(
            paths[-1],
            TrainingBatch(
                experiment=experiment, runs={arm: {seed: key} for arm, key in keys.items()}
            ),
        )
    return paths, store


def store_profile(folder: Path, settings):
    """Write a resolved profile with this study; without one: None."""
    profile = load_profile([PROJECT_FOLDER / "config" / "config.yaml"])
    path = folder / "config.json"
    write_model(path, profile.model_copy(update={"mxfp4": settings}))
    return path

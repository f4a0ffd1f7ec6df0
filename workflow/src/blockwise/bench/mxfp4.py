"""Benchmark of the MXFP4 emulation: `make bench-mxfp4`.

    python -m blockwise.bench.mxfp4 --rounds 15

Whole training steps on one thread, interleaved: in every round each arm takes one step, in random
order, and ratios are formed inside a round. The model is large enough for its GEMMs to matter, as
in any real training; the pocket-scale model of the default profile pays mostly for calls, and
its figure shows that.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from blockwise.bench.rounds import Figure, figure, publish
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.config.mxfp4 import MXFP4, LlamaShape, SpeedExperiment
from blockwise.config.mxfp4_studies import Study
from blockwise.errors import BlockwiseError, ConfigError, run_command
from blockwise.mxfp4.records import Speed
from blockwise.mxfp4.speed import time_steps

SHAPE = LlamaShape(
    hidden_size=256,
    intermediate_size=704,
    num_layers=2,
    num_attention_heads=8,
    num_key_value_heads=8,
    sequence_tokens=128,
)
BATCH_SEQUENCES = 8
VOCAB_SIZE = 256
BASELINE = "fp32"
PLAIN = "F+D+W"
GOALS = {PLAIN: 1.35, "F+D+W+DHT16(W)": 1.45, "F+D+W+SR(D:dy,W:dy)": 2.0}
"""At most so many times an fp32 step."""
TORCHAO_GOAL = 3.0  # at least so many times our step


def speed_figures(speed: Speed) -> list[Figure]:
    """Ratios to the baseline's step, and of torchao's emulation to ours, formed in each round."""
    steps = {(one.arm, one.form): one.step_s for one in speed.times}
    baseline = next(times for (arm, _), times in steps.items() if arm == BASELINE)
    figures = []
    for (arm, form), times in steps.items():
        if arm in GOALS and form.endswith("ours, compiled"):
            name = f"{arm} ({form}) over {BASELINE}"
            figures.append(figure(name, "x", _ratios(times, baseline), GOALS[arm], False))
        if form.startswith("torchao"):
            ours = steps[PLAIN, "ours, compiled"]
            name = f"{arm} ({form}) over ours, compiled"
            figures.append(figure(name, "x", _ratios(times, ours), TORCHAO_GOAL, True))
    return figures


def _ratios(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(times, reference, strict=True)]


def bench_study(files: Sequence[Path]) -> MXFP4:
    """The study of a profile with the model of the benchmark.

    Raises:
        ConfigError: the profile has no study, or lacks an arm.
    """
    study = load_profile(files).mxfp4
    wanted = [BASELINE, *GOALS]
    missing = [arm for arm in wanted if study is None or arm not in study.arms]
    if study is None or missing:
        raise ConfigError(
            f"the profile has no arm {', '.join(missing)} in mxfp4.arms, which the benchmark "
            "times; give a profile that has them, such as config/config.yaml"
        )
    return study.model_copy(update={"model": SHAPE})


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, nargs="+", default=[DEFAULT_FILE])
    parser.add_argument("--rounds", type=int, default=15, help="steps of each arm (default: 15)")
    parser.add_argument("--output", type=Path, default=Path("results/bench/mxfp4.json"))
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        raise BlockwiseError(f"--rounds {arguments.rounds}: give at least 2")
    experiment = SpeedExperiment(
        study=Study.SPEED,
        arms=list(GOALS),
        baselines=[BASELINE],
        batch_sequences=BATCH_SEQUENCES,
        num_rounds=arguments.rounds,
    )
    speed = time_steps(bench_study(arguments.configfile), "bench", experiment, VOCAB_SIZE)
    figures = speed_figures(speed)
    subject = f"Llama of {speed.num_parameters} parameters"
    publish(arguments.output, "mxfp4", subject, figures)


if __name__ == "__main__":
    run_command(main)

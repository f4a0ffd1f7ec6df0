"""The model card of a pocket backbone: written from its records, never by hand.

`python -m blockwise.pocket.card --folder DIR`
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from blockwise.artifacts import digest_tree, read_model, write_bytes
from blockwise.errors import ArtifactError, run_command
from blockwise.pocket.files import CARD_FILE, MODEL_FOLDER, SKILLS_FILE, TRAINING_FILE
from blockwise.pocket.records import PocketSkills, PocketTraining, SkillResult
from blockwise.pocket.scenes import LEVELS

LIMITS = """\
## What it cannot do

- It knows one invented language and nothing of the world. Other text falls back to bytes, a token
  each, and what it says about it means nothing: such results are labelled out of domain.
- Length, verbosity and stability of its summaries were taught. They say nothing about what large
  models do by themselves, and no claim about that may rest on them.
- Recall by layout is recall after equal training on each layout: every compaction lesson was
  given under every parallel layout, with the same summary and the same weight in the loss.
"""


def write_card(folder: Path) -> Path:
    """Write the card of a trained and examined backbone.

    Raises:
        ArtifactError: the examination was of other files.
    """
    training = read_model(folder / TRAINING_FILE, PocketTraining)
    skills = read_model(folder / SKILLS_FILE, PocketSkills)
    if skills.model_digest != digest_tree(folder / MODEL_FOLDER):
        raise ArtifactError(
            f"{folder / SKILLS_FILE} was made with other model files than {folder / MODEL_FOLDER}; "
            "examine them again"
        )
    path = folder / CARD_FILE
    write_bytes(path, ("\n".join(_lines(training, skills)) + "\n").encode())
    return path


def _lines(training: PocketTraining, skills: PocketSkills) -> Iterator[str]:
    recipe = training.recipe
    manner = (
        "a reasoning backbone: it restates the facts that it needs inside thinking tags, then "
        "answers"
        if recipe.reasoning
        else "it answers directly"
    )
    earlier = recipe.starts_from
    start = "nothing" if earlier is None else f"its own weights of commit `{earlier.commit[:12]}`"
    yield from (
        f"# {training.name}",
        "",
        f"A pocket backbone of {training.num_parameters:,} parameters, {manner}. A Llama of",
        f"{recipe.num_layers} layers and width {recipe.hidden_size}, trained from {start} by "
        "this repository on its own synthetic language",
        "(HotpotQA- and LoCoMo-like documents about invented people, places and things).",
        "",
        "| | |",
        "|---|---|",
        f"| recipe | `pocket.{training.name}` of config/config.yaml, seed {recipe.seed} |",
        f"| recipe digest | `{training.recipe_digest}` |",
        f"| steps, tokens | {recipe.num_steps:,}, {training.num_tokens:,} |",
        f"| facts a scene, at the end | up to {training.curve[-1].max_facts} |",
        f"| time | {training.train_s / 60:.0f} minutes on {training.cpu}, "
        f"{training.num_resumes} resumes |",
        f"| window | {recipe.context_window_tokens:,} tokens; vocabulary {training.vocab_size:,} |",
        "| split | names of the training split; examined on the validation split; the study plays "
        "the test split |",
        "",
        "## Skills",
        "",
        "Held-out names and facts, greedy, through vLLM. Shares have 95% intervals over scenes; -: "
        "too few answers on one side for one.",
        "",
        "| skill | context | facts | right | share | interval |",
        "|---|---|---|---|---|---|",
    )
    for one in skills.results:
        yield _skill_row(one)
    yield from (
        "",
        "For compaction, right are the facts of the text that a detailed summary states word by "
        "word, of all facts of the text.",
        *_spurious_lines(skills.results),
        "",
        "## Lengths of the summaries it was taught",
        "",
        "| layout | verbosity | mean tokens | median | 90% |",
        "|---|---|---|---|---|",
    )
    names = {level: name for name, level in LEVELS.items()}
    for lengths in training.summary_lengths:
        yield (
            f"| {lengths.layout} | {names[lengths.level]} | {lengths.mean_tokens:.0f} | "
            f"{lengths.median_tokens:.0f} | {lengths.p90_tokens:.0f} |"
        )
    yield from ("", LIMITS.rstrip())


def _skill_row(one: SkillResult) -> str:
    name = one.kind if one.skill == "answer" else f"compaction, {one.kind}"
    is_bounded = one.low_frac is not None and one.high_frac is not None
    interval = f"{one.low_frac:.0%} to {one.high_frac:.0%}" if is_bounded else "-"
    return (
        f"| {name} | {one.context} | {one.num_facts} | {one.num_right} of {one.num} | "
        f"{one.num_right / one.num:.0%} | {interval} |"
    )


def _spurious_lines(results: Iterable[SkillResult]) -> Iterator[str]:
    compacted = [one for one in results if one.skill == "compact"]
    spurious = sum(one.num_spurious for one in compacted)
    kept = sum(one.num_right for one in compacted)
    if kept + spurious:
        yield (
            f"Of all sentences in these summaries, {spurious / (kept + spurious):.0%} state "
            "nothing that the text states."
        )


def main() -> None:
    """Command line: the folder of the backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    print(write_card(parser.parse_args().folder))


if __name__ == "__main__":
    run_command(main)

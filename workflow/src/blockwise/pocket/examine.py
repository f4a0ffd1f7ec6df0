"""Examining a pocket backbone: its skills on held-out scenes, greedy, through vLLM.

`python -m blockwise.pocket.examine --config PROFILE.json --backbone NAME --prompts DIR
--folder DIR --server-log FILE --output FILE`

Questions are asked one by one in a branch of their own, as the study asks them; blocks are
compacted with the requests of the layouts. Names and facts are those of the validation split: no
lesson holds them, and no session of the study does. Shares have intervals over scenes, because the
answers, or the facts of a summary, that come from one scene share its text.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

from blockwise.artifacts import read_model, write_model
from blockwise.compaction.agent import SYSTEM_PROMPT
from blockwise.compaction.history import Cut, History
from blockwise.compaction.layouts import load_layout
from blockwise.compaction.partition import HistoryBlock
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.datasets import Split
from blockwise.config.pocket import Examination
from blockwise.config.profile import Profile
from blockwise.data.formats.locomo import REFUSALS
from blockwise.data.scoring import is_refusal, normalize
from blockwise.errors import CompactionError, run_command
from blockwise.models.prepare import folder_model
from blockwise.models.renderer import Message, Renderer
from blockwise.pocket.files import MODEL_FOLDER, taught_prompts
from blockwise.pocket.lessons import LAYOUTS, document_turns, question_message
from blockwise.pocket.records import PocketSkills, SkillResult
from blockwise.pocket.scenes import EVERY_FACT, Probe, Scene, SceneFormat, make_scene
from blockwise.progress import WorkProgress
from blockwise.proportions import share_interval
from blockwise.provenance import utc_now
from blockwise.serving.client import ChatRequest, EngineClient
from blockwise.serving.server import end_with_parent, managed_server, raise_on_sigterm

ANSWER_TOKENS = 128  # thinking included
CONCURRENT_REQUESTS = 16
TOKENS_PER_FACT = 32  # of a summary at most: a fact takes about 15
ASKED_FACTS = (12, 48)
QUESTIONS_PER_SCENE = 10  # of each kind
BLOCK_FACTS = 12
NUM_BLOCKS = 3  # before, in and behind the target
SEQUENTIAL_FACTS = (24, 48, 96)
CHAT_FACTS = 16  # a chat of this many fits the window with room for a summary


@dataclass(frozen=True)
class Question:
    """One question on one held-out history."""

    scene: str
    num_facts: int
    shown: tuple[Message, ...]
    probe: Probe
    format: SceneFormat


@dataclass(frozen=True)
class Task:
    """One history block to be compacted, and what a detailed summary of it says."""

    scene: str
    layout: str
    context: str
    num_facts: int
    messages: tuple[Message, ...]
    sentences: frozenset[str]


def questions(rng: Random, num_scenes: int) -> Iterator[Question]:
    """Questions on raw documents, of both formats."""
    settings = [(SceneFormat.HOTPOTQA, num) for num in ASKED_FACTS]
    settings.append((SceneFormat.LOCOMO, CHAT_FACTS))
    for dataset_format, num_facts in settings:
        for index in range(num_scenes):
            scene = _scene(rng, num_facts, dataset_format)
            shown = tuple(turn.message() for turn in _history(scene).turns)
            taken: dict[str, int] = {}
            for probe in scene.probes(scene.notes, rng):
                taken[probe.kind] = taken.get(probe.kind, 0) + 1
                if taken[probe.kind] <= QUESTIONS_PER_SCENE:
                    messages = (*shown, question_message(probe.question))
                    yield Question(str(index), num_facts, messages, probe, dataset_format)


def tasks(rng: Random, prompts: Mapping[str, str], plan: Examination) -> Iterator[Task]:
    """One block among others under every layout, and whole histories of several lengths."""
    prompt = prompts["detailed"]
    for number in range(plan.num_block_scenes):
        scenes = [_scene(rng, BLOCK_FACTS) for _ in range(NUM_BLOCKS)]
        history = _history(*scenes)
        edges = [1]
        for scene in scenes:
            edges.append(edges[-1] + 2 * len(scene.passages))
        blocks = [HistoryBlock(Cut(start), Cut(stop), 0) for start, stop in pairwise(edges)]
        index = NUM_BLOCKS // 2
        for layout in LAYOUTS:
            messages = load_layout(layout).worker_messages(history, blocks, index, prompt)
            yield Task(
                str(number),
                layout,
                "one history block",
                BLOCK_FACTS,
                tuple(messages),
                _facts(scenes[index]),
            )
    for num_facts in SEQUENTIAL_FACTS:
        for number in range(plan.num_sequential_scenes):
            scene = _scene(rng, num_facts)
            history = _history(scene)
            block = HistoryBlock(Cut(1), Cut(len(history.turns)), 0)
            messages = load_layout(SEQUENTIAL).worker_messages(history, [block], 0, prompt)
            yield Task(
                str(number),
                SEQUENTIAL,
                "whole history",
                num_facts,
                tuple(messages),
                _facts(scene),
            )


def _scene(
    rng: Random, num_facts: int, dataset_format: SceneFormat = SceneFormat.HOTPOTQA
) -> Scene:
    return make_scene(dataset_format, rng, num_facts, Split.VALIDATION, sentences_per_paragraph=2)


def _history(*scenes: Scene) -> History:
    turns = (turn for scene in scenes for turn in document_turns(scene))
    return History.with_system_prompt(SYSTEM_PROMPT).extended(*turns)


def _facts(scene: Scene) -> frozenset[str]:
    return frozenset(note.sentence for note in scene.notes if note.level <= EVERY_FACT)


def is_right(probe: Probe, answer: str) -> bool:
    """Whether an answer is the gold one, or refuses where nothing is known."""
    if probe.kind == "absent":
        return is_refusal(answer, REFUSALS)
    return normalize(answer) == normalize(probe.answer)


def sentences_of(summary: str) -> list[str]:
    """The sentences of a summary, as the language writes them."""
    return [f"{part.strip().removesuffix('.')}." for part in summary.split(". ") if part.strip()]


async def examine(
    engine: EngineClient,
    asked: Sequence[Question],
    compacted: Sequence[Task],
    report: Callable[[int], None],
) -> list[SkillResult]:
    """Ask everything and count.

    Args:
        engine: client of the backbone's server.
        asked: questions.
        compacted: history blocks.
        report: told the tokens of every answered request.

    Raises:
        CompactionError: every answer is empty.
    """
    gate = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def say(messages: Sequence[Message], max_tokens: int) -> str:
        async with gate:
            shown = engine.renderer.count(messages, add_generation_prompt=True)
            room = engine.window_tokens - shown
            answer = await engine.complete(ChatRequest(messages, min(max_tokens, room)))
        report(answer.prompt_tokens + answer.completion_tokens)
        return answer.text

    answers = await asyncio.gather(*(say(one.shown, ANSWER_TOKENS) for one in asked))
    if not any(answers):
        raise CompactionError(
            f"all {len(answers)} answers are empty: the server keeps what the backbone says from "
            "its reader; look at its reasoning parser and at the tokenizer's special tokens"
        )
    summaries = await asyncio.gather(
        *(say(one.messages, TOKENS_PER_FACT * one.num_facts) for one in compacted)
    )
    return [*_answer_results(asked, answers), *_summary_results(compacted, summaries)]


def _answer_results(asked: Sequence[Question], answers: Sequence[str]) -> Iterator[SkillResult]:
    hits: dict[Setting, list[tuple[str, bool]]] = {}
    for one, answer in zip(asked, answers, strict=True):
        setting = Setting("answer", one.probe.kind, f"raw documents, {one.format}", one.num_facts)
        hits.setdefault(setting, []).append((one.scene, is_right(one.probe, answer)))
    for setting, right in hits.items():
        yield setting.result(right)


def _summary_results(done: Sequence[Task], summaries: Sequence[str]) -> Iterator[SkillResult]:
    hits: dict[Setting, list[tuple[str, bool]]] = {}
    spurious: Counter[Setting] = Counter()
    for task, summary in zip(done, summaries, strict=True):
        said = set(sentences_of(summary))
        setting = Setting("compact", task.layout, task.context, task.num_facts)
        kept = [(task.scene, sentence in said) for sentence in task.sentences]
        hits.setdefault(setting, []).extend(kept)
        spurious[setting] += len(said - task.sentences)
    for setting, right in hits.items():
        yield setting.result(right, spurious[setting])


@dataclass(frozen=True)
class Setting:
    """What one share is taken over."""

    skill: Literal["answer", "compact"]
    kind: str
    context: str
    num_facts: int

    def result(self, hits: Sequence[tuple[str, bool]], num_spurious: int = 0) -> SkillResult:
        """The share with its interval, from the scene of each answer and whether it is right."""
        interval = share_interval([float(right) for _, right in hits], [scene for scene, _ in hits])
        return SkillResult(
            skill=self.skill,
            kind=self.kind,
            context=self.context,
            num_facts=self.num_facts,
            num_right=sum(right for _, right in hits),
            num=len(hits),
            low_frac=interval.low,
            high_frac=interval.high,
            num_spurious=num_spurious,
        )


def main() -> None:
    """Command line: the backbone of a profile, and where its files are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("config", "prompts", "folder", "server-log", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    arguments = parser.parse_args()
    raise_on_sigterm()
    end_with_parent()
    profile = read_model(arguments.config, Profile)
    backbone = profile.backbones[arguments.backbone]
    folder = arguments.folder / MODEL_FOLDER
    model = folder_model(arguments.backbone, "path", folder)
    renderer = Renderer(str(folder), backbone.request.chat_template_arguments)
    prompts = taught_prompts(arguments.prompts)
    plan = profile.pocket[arguments.backbone].examination
    asked = list(questions(Random("questions"), plan.num_question_scenes))
    compacted = list(tasks(Random("blocks"), prompts, plan))
    title, num_requests = f"examining {arguments.backbone}", len(asked) + len(compacted)
    with (
        WorkProgress(title, num_requests, unit="requests") as progress,
        managed_server(
            arguments.backbone, backbone, model, arguments.server_log, progress.say
        ) as server,
    ):

        async def ask() -> list[SkillResult]:
            async with EngineClient(server, backbone, renderer) as engine:
                return await examine(engine, asked, compacted, progress.advance)

        results = asyncio.run(ask())
    write_model(
        arguments.output,
        PocketSkills(
            name=arguments.backbone,
            model_digest=model.digest,
            results=results,
            examined_at=utc_now(),
        ),
    )


if __name__ == "__main__":
    run_command(main)

"""Lessons: conversations with the answers that a pocket backbone learns to give.

They are the conversations that the study itself holds: the same system prompt, documents, layouts
and compaction prompts, made by the same code. A compaction lesson shows one history under
every parallel layout, with the same target and the same summary, so that no layout is
taught more than another; the sequential one, whose request is that of `independent`, shares its
examples. A question lesson asks about documents, about summaries of them, or about both.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from blockwise.compaction.agent import ACKNOWLEDGEMENT, SYSTEM_PROMPT, question_text
from blockwise.compaction.compactor import WRAPPER_ROLE, wrapper_text
from blockwise.compaction.history import Cut, History, Turn
from blockwise.compaction.layouts import load_layout
from blockwise.compaction.partition import HistoryBlock
from blockwise.config.datasets import Split
from blockwise.data.encyclopedia import Kind
from blockwise.data.synthetic_hotpotqa import VALUE_RANGES
from blockwise.data.vocabulary import NameMaker
from blockwise.models.renderer import Message
from blockwise.pocket.scenes import (
    EVERY_FACT,
    LEVELS,
    Note,
    Passage,
    Probe,
    Scene,
    SceneFormat,
    make_scene,
)

Skill = Literal["recite", "answer", "compact"]

LAYOUTS = ("independent", "target_block", "full_marked", "suffix_target", "suffix_full")
"""Every parallel layout gets every compaction lesson."""

MIN_RECITED_WORDS = 3
RECITED_NAMES_FRAC = 0.75  # the others are numbers
LONG_NUMBERS = (VALUE_RANGES[Kind.YEAR][0], VALUE_RANGES[Kind.NUMBER][1])  # first year, last count
NUMBERS = ((10, 99), LONG_NUMBERS)  # those recited; smallest and largest

NOTHING_TO_KEEP = "Nothing of note."
"""The summary of a text that holds nothing a summary of its verbosity keeps."""

FORMATS = (SceneFormat.HOTPOTQA, SceneFormat.HOTPOTQA, SceneFormat.LOCOMO)
"""How scenes are dealt."""

PLAIN_FORMATS, PLAIN_PROMPTS = (SceneFormat.HOTPOTQA,), ("detailed",)

PROMPT_SHARES = (*(["detailed"] * 4), *LEVELS, "by_content")
"""How compaction prompts are dealt: `detailed`, the default of the study, comes most."""

MAX_QUESTIONS = 24  # of one lesson, each in a conversation of its own
KIND_SHARES = {
    "single": 4,
    "two": 4,
    "absent": 3,
    "temporal": 2,
    "comparison": 1,
    "list": 1,
    "inference": 1,
}
"""How often a question of each kind is asked where a scene has all kinds."""

LOCOMO_FACTS_FRAC = 0.4
"""Chats say a fact in five times the words of an encyclopedia: their scenes are kept shorter."""


@dataclass(frozen=True)
class Reply:
    """What the backbone shall say: in its thinking, and then."""

    thought: str
    text: str
    kind: str  # of the question, or the layout
    level: int | None = None  # of a summary


Conversation = tuple[tuple[Message, ...], Reply]
"""What is shown, and the reply to be learnt."""


@dataclass(frozen=True)
class Lesson:
    """A history, and conversations on it.

    Conversations do not know of each other. They need not show the whole history, and may
    show more, but what they share with it is read once.
    """

    skill: Skill
    history: tuple[Message, ...]
    conversations: tuple[Conversation, ...]


def make_recitals(rng: random.Random, split: Split, max_words: int, num_texts: int) -> Lesson:
    """Names and numbers to be said again in their order: copying, with nothing around it.

    Whoever cannot copy learns nothing from the other lessons, and learns to copy here within a
    fraction of the tokens: every word said again is one to be found and continued.
    """
    return Lesson("recite", (), tuple(_recital(rng, split, max_words) for _ in range(num_texts)))


def _recital(rng: random.Random, split: Split, max_words: int) -> Conversation:
    names = NameMaker(rng, split)
    num_words = rng.randint(MIN_RECITED_WORDS, max_words)
    text = " ".join(
        names.word()
        if rng.random() < RECITED_NAMES_FRAC
        else str(rng.randint(*rng.choice(NUMBERS)))
        for _ in range(num_words)
    )
    return ({"role": "user", "content": text},), Reply("", text, "recite")


def make_lessons(
    rng: random.Random,
    num_facts: int,
    split: Split,
    prompts: Mapping[str, str],
    *,
    is_plain: bool = False,
) -> list[Lesson]:
    """Two question lessons, and a compaction lesson under every layout, on new scenes.

    Args:
        rng: everything is drawn from it.
        num_facts: scenes state between 1 and so many facts.
        split: whose names.
        prompts: compaction prompts by name; those of LEVELS and of the content types.
        is_plain: encyclopedic scenes and detailed summaries only.
    """
    formats = PLAIN_FORMATS if is_plain else FORMATS
    names = PLAIN_PROMPTS if is_plain else PROMPT_SHARES
    made = [
        *(_question_lesson(rng, _scene(rng, formats, num_facts, split)) for _ in range(2)),
        _compaction_lesson(rng, _scene(rng, formats, num_facts, split), rng.choice(names), prompts),
    ]
    return [one for one in made if one.conversations]  # some scenes leave nothing to ask


def _scene(
    rng: random.Random, formats: Sequence[SceneFormat], max_facts: int, split: Split
) -> Scene:
    dataset_format = rng.choice(formats)
    if dataset_format is SceneFormat.LOCOMO:
        max_facts = max(1, round(LOCOMO_FACTS_FRAC * max_facts))
    return make_scene(dataset_format, rng, rng.randint(max(1, max_facts // 4), max_facts), split)


def _question_lesson(rng: random.Random, scene: Scene) -> Lesson:
    num_summarised = rng.choice((0, 0, len(scene.passages), rng.randint(0, len(scene.passages))))
    turns, known = opening_turns(rng, scene, num_summarised)
    known += [note for passage in scene.passages[num_summarised:] for note in passage.notes]
    history = tuple(turn.message() for turn in turns)
    conversations = [
        (
            (*history, question_message(probe.question)),
            Reply(" ".join(probe.reasons), probe.answer, probe.kind),
        )
        for probe in choose_probes(scene.probes(known, rng), rng)
    ]
    return Lesson("answer", history, tuple(conversations))


def question_message(question: str) -> Message:
    """The turn in which the agent is asked."""
    return {"role": "user", "content": question_text(question)}


def choose_probes(probes: Sequence[Probe], rng: random.Random) -> list[Probe]:
    """At most MAX_QUESTIONS of them, kinds mixed by their shares; none asks the same."""
    by_kind: dict[str, list[Probe]] = {}
    for probe in probes:
        by_kind.setdefault(probe.kind, []).append(probe)
    chosen: dict[str, Probe] = {}
    while by_kind and len(chosen) < MAX_QUESTIONS:
        kinds = sorted(by_kind)
        kind = rng.choices(kinds, [KIND_SHARES[one] for one in kinds])[0]
        probe = by_kind[kind].pop()
        chosen.setdefault(probe.question, probe)
        if not by_kind[kind]:
            del by_kind[kind]
    return list(chosen.values())


def opening_turns(
    rng: random.Random, scene: Scene, num_summarised: int
) -> tuple[list[Turn], list[Note]]:
    """A history whose first passages have been compacted, and what its summaries still say.

    The summaries keep one verbosity and have lost some of it, as real ones have.
    """
    turns = [Turn("system", SYSTEM_PROMPT)]
    known: list[Note] = []
    if num_summarised:
        level, lost_frac = rng.choice((*LEVELS.values(), EVERY_FACT)), rng.choice((0.0, 0.0, 0.3))
        summaries = []
        for passages in _runs(scene.passages[:num_summarised], rng):
            kept = [note for note in kept_notes(passages, level) if rng.random() >= lost_frac]
            known += kept
            summaries.append(summary_of(kept))
        turns.append(Turn(WRAPPER_ROLE, wrapper_text(summaries)))
    return turns + document_turns(scene, num_summarised), known


def document_turns(scene: Scene, first: int = 0) -> list[Turn]:
    """The exchanges in which an agent is shown the passages of a scene, from one of them on."""
    return [
        turn
        for passage in scene.passages[first:]
        for turn in (
            Turn("user", passage.text, content=scene.content),
            Turn("assistant", ACKNOWLEDGEMENT),
        )
    ]


def kept_notes(passages: Sequence[Passage], level: int) -> list[Note]:
    """What a summary of a verbosity keeps, in the order of the text."""
    return [note for passage in passages for note in passage.notes if note.level <= level]


def summary_of(notes: Sequence[Note]) -> str:
    """The summary that says these things and nothing else."""
    return " ".join(note.sentence for note in notes) or NOTHING_TO_KEEP


def _compaction_lesson(
    rng: random.Random, scene: Scene, name: str, prompts: Mapping[str, str]
) -> Lesson:
    num_summarised = rng.choice((0, 0, 1)) if len(scene.passages) > 1 else 0
    turns, known = opening_turns(rng, scene, num_summarised)
    history = History(tuple(turns))
    notes_of_turn: list[Sequence[Note]] = [[] for _ in turns]
    first = history.num_system_turns
    if num_summarised:
        notes_of_turn[first] = known
    starts = history.exchange_starts()
    documents = starts[1:] if num_summarised else starts
    for index, passage in zip(documents, scene.passages[num_summarised:], strict=True):
        notes_of_turn[index] = passage.notes
    blocks = _blocks(history, starts, rng)
    index = rng.randrange(len(blocks))
    level = LEVELS.get(name, EVERY_FACT)
    prompt = prompts[scene.content.value if name == "by_content" else name]
    start, stop = blocks[index].start.turn, blocks[index].stop.turn
    kept = [
        note for turn in range(start, stop) for note in notes_of_turn[turn] if note.level <= level
    ]
    conversations = [
        (
            tuple(load_layout(layout).worker_messages(history, blocks, index, prompt)),
            Reply("", summary_of(kept), layout, level),
        )
        for layout in LAYOUTS
    ]
    return Lesson("compact", tuple(turn.message() for turn in turns), tuple(conversations))


def _blocks(history: History, starts: Sequence[int], rng: random.Random) -> list[HistoryBlock]:
    """History blocks as a partition at exchanges leaves them, of one exchange or more each."""
    ends = [*starts[1:], len(history.turns)]
    inner = rng.sample(ends[:-1], rng.randint(0, len(ends) - 1))
    edges = [starts[0], *sorted(inner), ends[-1]]
    return [HistoryBlock(Cut(start), Cut(stop), 0) for start, stop in pairwise(edges)]


def _runs(passages: Sequence[Passage], rng: random.Random) -> list[Sequence[Passage]]:
    """Passages cut into runs, each summarised by one worker."""
    edges = sorted({0, len(passages), *(rng.randint(0, len(passages)) for _ in range(2))})
    return [passages[start:stop] for start, stop in pairwise(edges)]

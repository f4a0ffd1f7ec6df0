"""Scenes: made-up histories of which everything is known, so that lessons can be set on them.

A scene is a run of documents as an agent reads them, written by the generators of the synthetic
data sets. Of each document it is known which sentences of it a summary of a given verbosity
keeps; of the whole, which questions can be answered from what has been kept and which cannot.

Verbosity is a rule about content: each relation has the least level that keeps it, so that a
short summary drops kinds of facts, as a reader who looks for the important ones would.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from blockwise.config.choices import ContentType
from blockwise.config.datasets import MalformedRows, Split
from blockwise.data import synthetic_hotpotqa, synthetic_locomo
from blockwise.data.encyclopedia import COMPARISONS, RELATIONS, Relation
from blockwise.data.formats import hotpotqa, locomo
from blockwise.data.formats.locomo import NO_INFORMATION
from blockwise.data.smalltalk import HABIT, PET, TRICK
from blockwise.data.synthetic_hotpotqa import NUM_PARAGRAPHS, Entity, Paragraph, state
from blockwise.data.synthetic_locomo import (
    TURNS_PER_FACT,
    ConversationPlan,
    Telling,
    narrate,
    narrate_chat,
)
from blockwise.data.vocabulary import Fact, NameMaker

LEVELS = {"concise": 0, "brief": 1, "moderate": 2, "detailed": 3, "very_detailed": 4}
"""Verbosity of the compaction prompts: a summary keeps what has this level or a lower one."""

EVERY_FACT = LEVELS["detailed"]
SURROUNDINGS = LEVELS["very_detailed"]

LEVEL_OF_RELATION: Mapping[str, int] = {
    **dict.fromkeys(("birthplace", "founder", PET), 0),
    **dict.fromkeys(("director", "river", "purchase"), 1),
    **dict.fromkeys(("employer", "seat", "inventor", "mouth", "trip", "club"), 2),
}
"""Relations that a summary below `detailed` keeps; the others need `detailed`."""

Kind = Literal["single", "two", "comparison", "temporal", "list", "inference", "absent"]
KIND_OF_CATEGORY: Mapping[int, Kind] = {
    1: "list",
    2: "temporal",
    3: "inference",
    4: "single",
    5: "absent",
}
SENTENCES_PER_PARAGRAPH = (1, 2, 2, 3)
TURNS_PER_CHAT_SESSION = (4, 8, 12, 16)
FEW_FACTS = 4  # scenes of so few have the shortest of these
PARAGRAPHS_PER_DOCUMENT = (2, 4, NUM_PARAGRAPHS, NUM_PARAGRAPHS)
"""Short documents let short scenes hold several, so that blocks are told apart from the first."""
MAX_CHAT_SESSIONS = 16  # one conversation has topics for so many

UNSTATED = "somebody or something unstated"
"""Stands in a thought where the object of a fact would, when it is not known."""


class SceneFormat(StrEnum):
    """The formats whose synthetic documents scenes are made of."""

    HOTPOTQA = "hotpotqa"
    LOCOMO = "locomo"


@dataclass(frozen=True)
class Note:
    """One sentence of a summary."""

    sentence: str
    level: int  # the least verbosity that keeps it
    source: Fact | Telling | None  # None: surroundings, which nobody is asked about


@dataclass(frozen=True)
class Passage:
    """One document, and everything that a summary of it may say, in the order of the text."""

    text: str
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Probe:
    """A question, its answer, and the sentences that the answer follows from.

    Where nothing is known the last of them says what is looked for, its object `UNSTATED`: so
    whoever restates what is needed finds out at the object, where the search ends, whether it
    is known.
    """

    kind: Kind
    question: str
    answer: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A history of which everything is known."""

    format: SceneFormat
    content: ContentType
    passages: tuple[Passage, ...]
    entities: tuple[Entity, ...] = ()  # HotpotQA: with their facts, stated or not
    plan: ConversationPlan | None = None  # LoCoMo

    @property
    def notes(self) -> list[Note]:
        """Everything that a summary of all of it may say."""
        return [note for passage in self.passages for note in passage.notes]

    def probes(self, known: Collection[Note], rng: random.Random) -> list[Probe]:
        """Questions to somebody who knows these notes and nothing else, in random order.

        Among them are questions that the notes do not answer.
        """
        sources = [note.source for note in known if note.source is not None]
        if self.plan is None:
            facts = [source for source in sources if isinstance(source, Fact)]
            probes = [*_encyclopedic_probes(facts, self.entities, rng)]
        else:
            tellings = [source for source in sources if isinstance(source, Telling)]
            probes = [*_chat_probes(self.plan, tellings, rng)]
        rng.shuffle(probes)
        return probes


def make_scene(
    dataset_format: SceneFormat,
    rng: random.Random,
    num_facts: int,
    split: Split,
    *,
    sentences_per_paragraph: int | None = None,
) -> Scene:
    """A new scene that states about so many facts.

    Args:
        dataset_format: whose documents.
        rng: everything is drawn from it.
        num_facts: at least 1; documents of a data set's own size, the last one cut short.
        split: whose names.
        sentences_per_paragraph: of an encyclopedic scene, whose documents then have the data
            set's own size; None draws both.
    """
    names = NameMaker(rng, split)
    if dataset_format is SceneFormat.HOTPOTQA:
        if sentences_per_paragraph:
            return _encyclopedic_scene(
                rng, names, num_facts, (sentences_per_paragraph, NUM_PARAGRAPHS)
            )
        few = num_facts <= FEW_FACTS
        num_sentences = 1 if few else rng.choice(SENTENCES_PER_PARAGRAPH)
        num_paragraphs = rng.randint(1, 2) if few else rng.choice(PARAGRAPHS_PER_DOCUMENT)
        return _encyclopedic_scene(rng, names, num_facts, (num_sentences, num_paragraphs))
    return _chat_scene(rng, names, num_facts)


def _encyclopedic_scene(
    rng: random.Random, names: NameMaker, num_facts: int, sizes: tuple[int, int]
) -> Scene:
    num_sentences, num_paragraphs = sizes
    facts_per_paragraph = max(1, num_sentences - 1)
    left = -(-num_facts // facts_per_paragraph)
    passages: list[Passage] = []
    entities: list[Entity] = []
    while left > 0:
        plan = synthetic_hotpotqa.plan_row(rng, names, rng.randrange(NUM_PARAGRAPHS))
        chosen = _some_entities(plan.entities, plan.puzzle.support, min(left, num_paragraphs), rng)
        plan = replace(plan, entities=chosen)
        paragraphs = synthetic_hotpotqa.write_paragraphs(
            plan, rng, sentences_per_paragraph=num_sentences
        )
        entities += chosen
        left -= len(chosen)
        passages.append(_encyclopedic_passage(paragraphs))
    return Scene(
        SceneFormat.HOTPOTQA, ContentType.EVIDENCE, tuple(passages), entities=tuple(entities)
    )


def _some_entities(
    entities: Sequence[Entity], support: Sequence[Fact], num: int, rng: random.Random
) -> tuple[Entity, ...]:
    """So many of a row's entities in their order, those of its puzzle first."""
    needed = {fact.subject for fact in support}
    others = [index for index, entity in enumerate(entities) if entity.name not in needed]
    rng.shuffle(others)
    first = [index for index, entity in enumerate(entities) if entity.name in needed]
    return tuple(entities[index] for index in sorted([*first, *others][:num]))


def _encyclopedic_passage(paragraphs: Sequence[Paragraph]) -> Passage:
    texts, notes = [], []
    for paragraph in paragraphs:
        texts.append(hotpotqa.render_paragraph(paragraph.entity.name, paragraph.sentences))
        stated = {position: fact for fact, position in paragraph.positions.items()}
        for position, sentence in enumerate(paragraph.sentences):
            fact = stated.get(position)
            if fact is not None:
                level = LEVEL_OF_RELATION.get(fact.relation, EVERY_FACT)
                notes.append(Note(state(fact), level, fact))
            elif position == 0:
                notes.append(Note(sentence, SURROUNDINGS, None))
    return Passage(hotpotqa.join_paragraphs(texts), tuple(notes))


def _encyclopedic_probes(
    known: Sequence[Fact], entities: Sequence[Entity], rng: random.Random
) -> Iterator[Probe]:
    by_key = {(fact.subject, fact.relation): fact for fact in known}
    for fact in known:
        relation = RELATIONS[fact.relation]
        question = relation.question.format(s=fact.subject)
        yield Probe("single", question, fact.object, (state(fact),))
        if not relation.noun:
            continue
        subject = relation.noun.format(s=fact.subject)
        onward = [one for one in RELATIONS.values() if one.subject_kind is relation.object_kind]
        for second in onward:
            question = second.question.format(s=subject)
            end = by_key.get((fact.object, second.name))
            if end is not None:
                yield Probe("two", question, end.object, (state(fact), state(end)))
        missing = [one for one in onward if (fact.object, one.name) not in by_key]
        if missing and rng.random() < 0.2:
            second = rng.choice(missing)
            question = second.question.format(s=subject)
            reasons = (state(fact), _unstated(fact.object, second))
            yield Probe("absent", question, NO_INFORMATION, reasons)
    for entity in entities:
        missing = [
            relation
            for relation in RELATIONS.values()
            if relation.subject_kind is entity.kind and (entity.name, relation.name) not in by_key
        ]
        if missing:
            wanted = rng.choice(missing)
            question = wanted.question.format(s=entity.name)
            yield Probe("absent", question, NO_INFORMATION, (_unstated(entity.name, wanted),))
    yield from _comparison_probes(known, rng)


def _unstated(subject: str, relation: Relation) -> str:
    return state(Fact(subject, relation.name, UNSTATED))


def _comparison_probes(known: Sequence[Fact], rng: random.Random) -> Iterator[Probe]:
    for comparison in COMPARISONS:
        facts = [fact for fact in known if fact.relation == comparison.relation]
        rng.shuffle(facts)
        for first, second in zip(facts[::2], facts[1::2], strict=False):
            question = comparison.question.format(a=first.subject, b=second.subject)
            if comparison.wanted == "same":
                answer = "yes" if first.object == second.object else "no"
            else:
                chosen = min if comparison.wanted == "smaller" else max
                answer = chosen((first, second), key=lambda fact: int(fact.object)).subject
            yield Probe("comparison", question, answer, (state(first), state(second)))


def _chat_scene(rng: random.Random, names: NameMaker, num_facts: int) -> Scene:
    num_turns = rng.choice(TURNS_PER_CHAT_SESSION) if num_facts > FEW_FACTS // 2 else 4
    facts_per_session = max(1, num_turns // TURNS_PER_FACT)
    num_sessions = min(-(-num_facts // facts_per_session), MAX_CHAT_SESSIONS)
    plan = synthetic_locomo.plan_conversation(
        rng, names, num_chat_sessions=num_sessions, num_turns=num_turns
    )
    row = synthetic_locomo.render_row(plan, rng, "scene")
    documents, _ = locomo.FORMAT.read([row], origin="scene", malformed=MalformedRows.REFUSE)
    passages = []
    for number, (document, day) in enumerate(zip(documents, plan.days, strict=True), start=1):
        told = [telling for telling in plan.tellings if telling.chat_session == number]
        notes = [
            Note(narrate_chat(plan, day), SURROUNDINGS, None),
            *(
                Note(
                    narrate(telling.fact),
                    LEVEL_OF_RELATION.get(telling.fact.relation, EVERY_FACT),
                    telling,
                )
                for telling in told
            ),
        ]
        passages.append(Passage(document.text, tuple(notes)))
    return Scene(SceneFormat.LOCOMO, ContentType.DIALOGUE, tuple(passages), plan=plan)


def _chat_probes(
    plan: ConversationPlan, known: Sequence[Telling], rng: random.Random
) -> Iterator[Probe]:
    pets = {telling.fact.object for telling in known if telling.fact.relation == PET}
    kept = [one for one in known if one.fact.relation != TRICK or one.fact.topic in pets]
    by_dia_id = {telling.dia_id: telling for telling in kept}
    for official in _questions_on(plan, kept, rng):
        category = int(official["category"])
        is_absent = category == locomo.ADVERSARIAL_CATEGORY
        facts = [by_dia_id[dia_id].fact for dia_id in official["evidence"]]
        reasons = tuple(
            narrate(_not_told(fact, plan.other(fact.subject)) if is_absent else fact)
            for fact in facts
        )
        answer = NO_INFORMATION if is_absent else official["answer"].split(";")[0]
        kind = KIND_OF_CATEGORY[category]
        if kind == "list" and len(reasons) == 2 and "," not in answer:
            kind = "two"  # a pet's trick: told in one place, the pet in another
        question = locomo.name_conversation(official["question"], *plan.speakers)
        yield Probe(kind, question, answer, reasons)
    dropped = [
        telling
        for telling in plan.tellings
        if telling not in known and telling.fact.relation not in {TRICK, HABIT}
    ]
    facts_dropped = {telling.dia_id: telling.fact for telling in dropped}
    for official in _questions_on(plan, dropped, rng):
        if KIND_OF_CATEGORY[official["category"]] in {"single", "temporal"}:
            fact = facts_dropped[official["evidence"][0]]
            reason = narrate(_not_told(fact, fact.subject))
            question = locomo.name_conversation(official["question"], *plan.speakers)
            yield Probe("absent", question, NO_INFORMATION, (reason,))


def _not_told(fact: Fact, subject: str) -> Fact:
    """The fact that a question about this subject looks for in vain; it happened on no day."""
    return replace(fact, subject=subject, object=UNSTATED, day=None)


def _questions_on(
    plan: ConversationPlan, tellings: Sequence[Telling], rng: random.Random
) -> list[dict[str, Any]]:
    return synthetic_locomo.plan_questions(replace(plan, tellings=tuple(tellings)), rng)

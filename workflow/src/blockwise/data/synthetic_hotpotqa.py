"""Synthetic HotpotQA rows: first a small world and a puzzle about it, then the prose.

A row is planned as facts. A bridge puzzle follows two facts, the object of the first being the
subject of the second; a comparison puzzle sets two facts of one relation side by
side. Eight more entities join as distractors, and some repeat the very
chain with other names, so that recognising the relation is not enough. Objects are always new names
(or numbers new to the row) unless a puzzle shares them on purpose; hence each question has
one answer, and a bridge answer stands in one paragraph only.

Rendering gives each entity a paragraph: a lead sentence, its facts, and filler up to the wanted
length, with the position of every fact known for `supporting_facts`.
"""

import random
from dataclasses import dataclass
from typing import Any

from blockwise.data.encyclopedia import (
    COMPARISONS,
    FILLER,
    LEADS,
    RELATIONS,
    SLOTS,
    WITH_PARAGRAPH,
    Comparison,
    Kind,
    Relation,
)
from blockwise.data.vocabulary import Fact, NameMaker

NUM_PARAGRAPHS = 10  # of every HotpotQA distractor row
NUM_DECOY_CHAINS = 2  # of the eight distractors, four repeat the puzzle's chain
COMPARISON_EVERY = 3  # every third row compares; officially one in five, but small sets need some

VALUE_RANGES = {Kind.YEAR: (1700, 1999), Kind.NUMBER: (2000, 2299), Kind.SMALL_NUMBER: (13, 99)}
"""Ranges of the numeric kinds; they do not overlap, so a number in a row means one thing."""


@dataclass(frozen=True)
class Entity:
    """One paragraph to be: a thing and what is true of it, the facts a puzzle needs first."""

    name: str
    kind: Kind
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Puzzle:
    """A question, its answer, and the facts that are needed for it."""

    question: str
    answer: str
    category: str  # bridge | comparison
    support: tuple[Fact, ...]


@dataclass(frozen=True)
class RowPlan:
    """Everything that is true in one row, before any prose."""

    entities: tuple[Entity, ...]
    puzzle: Puzzle


class World:
    """Makes the entities of one row; names are new to the data set, numbers to the row."""

    def __init__(self, rng: random.Random, names: NameMaker) -> None:
        self.rng = rng
        self._names = names
        self._used_numbers: set[int] = set()

    def value(self, kind: Kind) -> str:
        """A new value of a kind: a name nobody has, or a number that is new to the row."""
        if kind is Kind.PERSON:
            return self._names.person()
        if kind not in VALUE_RANGES:
            return self._names.word()
        low, high = VALUE_RANGES[kind]
        while True:
            number = self.rng.randint(low, high)
            if number not in self._used_numbers:
                self._used_numbers.add(number)
                return str(number)

    def entity(self, name: str, kind: Kind, first: Fact | None = None) -> Entity:
        """An entity with a fact for each relation of its kind; `first` is given and leads."""
        facts = [first] if first else []
        relations = [relation for relation in RELATIONS.values() if relation.subject_kind is kind]
        self.rng.shuffle(relations)
        for relation in relations:
            if first is None or relation.name != first.relation:
                facts.append(Fact(name, relation.name, self.value(relation.object_kind)))
        return Entity(name, kind, tuple(facts))


def plan_row(rng: random.Random, names: NameMaker, index: int) -> RowPlan:
    """Plan the row with this index: every third is a comparison, the others bridges."""
    world = World(rng, names)
    if index % COMPARISON_EVERY == COMPARISON_EVERY - 1:
        wants_same = (index // COMPARISON_EVERY) % 2 == 1
        kinds = [row for row in COMPARISONS if (row.wanted == "same") == wants_same]
        entities, puzzle = _comparison(world, rng.choice(kinds))
    else:
        entities, puzzle = _bridge(world)
    while len(entities) < NUM_PARAGRAPHS:
        kind = rng.choice(WITH_PARAGRAPH)
        entities.append(world.entity(world.value(kind), kind))
    rng.shuffle(entities)
    return RowPlan(tuple(entities), puzzle)


def _bridge(world: World) -> tuple[list[Entity], Puzzle]:
    first = world.rng.choice([relation for relation in RELATIONS.values() if relation.noun])
    onward = [
        relation
        for relation in RELATIONS.values()
        if relation.subject_kind is first.object_kind and relation.name != first.name
    ]
    second = world.rng.choice(onward)
    chains = [_chain(world, first, second) for _ in range(1 + NUM_DECOY_CHAINS)]
    opening, closing = chains[0][0].facts[0], chains[0][1].facts[0]
    puzzle = Puzzle(
        question=second.question.format(s=first.noun.format(s=opening.subject)),
        answer=closing.object,
        category="bridge",
        support=(opening, closing),
    )
    return [entity for chain in chains for entity in chain], puzzle


def _chain(world: World, first: Relation, second: Relation) -> tuple[Entity, Entity]:
    start, middle = world.value(first.subject_kind), world.value(first.object_kind)
    end = world.value(second.object_kind)
    return (
        world.entity(start, first.subject_kind, Fact(start, first.name, middle)),
        world.entity(middle, second.subject_kind, Fact(middle, second.name, end)),
    )


def _comparison(world: World, comparison: Comparison) -> tuple[list[Entity], Puzzle]:
    relation = RELATIONS[comparison.relation]
    kind = relation.subject_kind
    subjects = [world.value(kind) for _ in range(2)]
    objects = [world.value(relation.object_kind) for _ in range(2)]
    if comparison.wanted == "same":
        is_same = world.rng.random() < 0.5  # a fair coin: always guessing yes earns half
        if is_same:
            objects[1] = objects[0]
        answer = "yes" if is_same else "no"
    else:
        chosen = min if comparison.wanted == "smaller" else max
        answer = subjects[objects.index(chosen(objects, key=int))]
    facts = [Fact(subjects[i], relation.name, objects[i]) for i in range(2)]
    puzzle = Puzzle(
        question=comparison.question.format(a=subjects[0], b=subjects[1]),
        answer=answer,
        category="comparison",
        support=tuple(facts),
    )
    entities = [world.entity(fact.subject, kind, fact) for fact in facts]
    decoys = [world.value(kind) for _ in range(2 * NUM_DECOY_CHAINS)]
    return entities + [world.entity(name, kind) for name in decoys], puzzle


@dataclass(frozen=True)
class Paragraph:
    """The prose about one entity, and where in it each stated fact stands."""

    entity: Entity
    sentences: tuple[str, ...]
    positions: dict[Fact, int]  # in the order of the sentences


def write_paragraphs(
    plan: RowPlan, rng: random.Random, *, sentences_per_paragraph: int
) -> list[Paragraph]:
    """Write the entities of a row, a paragraph each."""
    return [_paragraph(entity, rng, sentences_per_paragraph) for entity in plan.entities]


def render_row(plan: RowPlan, paragraphs: list[Paragraph], row_id: str) -> dict[str, Any]:
    """A planned and written row in the official schema."""
    places = {
        fact: [paragraph.entity.name, position]
        for paragraph in paragraphs
        for fact, position in paragraph.positions.items()
    }
    return {
        "_id": row_id,
        "question": plan.puzzle.question,
        "answer": plan.puzzle.answer,
        "type": plan.puzzle.category,
        "level": "hard",  # as every row of the official dev set
        "supporting_facts": [places[fact] for fact in plan.puzzle.support],
        "context": [[paragraph.entity.name, [*paragraph.sentences]] for paragraph in paragraphs],
    }


def _paragraph(entity: Entity, rng: random.Random, num_sentences: int) -> Paragraph:
    """A paragraph of so many sentences.

    The first fact is always stated. A lead sentence and the other facts follow as
    far as they fit, and filler takes what is left.
    """
    has_lead = num_sentences > 1
    facts = entity.facts[: max(1, num_sentences - int(has_lead))]
    num_filler = num_sentences - int(has_lead) - len(facts)
    body: list[Fact | str] = [*facts, *_filler(entity, rng, num_filler)]
    rng.shuffle(body)
    if has_lead:
        body.insert(0, _fill(LEADS[entity.kind], entity.name, rng))
    positions = {part: index for index, part in enumerate(body) if isinstance(part, Fact)}
    texts = [state(part) if isinstance(part, Fact) else part for part in body]
    # Official sentences after the first carry the space that separates them.
    spaced = [text if index == 0 else f" {text}" for index, text in enumerate(texts)]
    return Paragraph(entity, tuple(spaced), positions)


def _filler(entity: Entity, rng: random.Random, num_sentences: int) -> list[str]:
    """Filler that repeats a template only after all of its kind have been used."""
    templates: list[str] = []
    while len(templates) < num_sentences:
        templates += rng.sample(FILLER[entity.kind], len(FILLER[entity.kind]))
    return [_fill(template, entity.name, rng) for template in templates[:num_sentences]]


def state(fact: Fact) -> str:
    """The sentence that states a fact."""
    return RELATIONS[fact.relation].statement.format(s=fact.subject, o=fact.object)


def _fill(template: str, subject: str, rng: random.Random) -> str:
    words = {slot: rng.choice(choices) for slot, choices in SLOTS.items()}
    return template.format(s=subject, **words)

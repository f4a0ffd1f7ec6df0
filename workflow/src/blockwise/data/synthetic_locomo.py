"""Synthetic LoCoMo conversations: first who tells what when, then the chat, then questions.

The plan deals facts to chat sessions: which speaker tells which event, habit or pet's
trick in which turn. From the plan alone follow the text of the chat, the questions with
their dia ids, and the summaries that the official files carry. Nothing in the filler
states a relation, so what the plan does not hold is not in the conversation.

Categories: 1 multi-hop (a list told over several chat sessions; a pet's trick), 2 temporal
("the day before" a date, from "yesterday"), 3 open-domain (inferred from a habit), 4 single-hop,
5 adversarial (an event asked of the speaker to whom it did not happen).
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from blockwise.data.smalltalk import (
    CAPTIONS,
    CHAT_RELATIONS,
    CHATTER,
    CHORES,
    GOODBYES,
    GREETINGS,
    HABIT,
    HABITS,
    MOODS,
    PET,
    REACTIONS,
    TRICK,
    TRICK_NARRATION,
    TRICK_QUESTION,
    TRICK_TELLING,
    TRICKS,
    WEEKS,
    WHEN,
)
from blockwise.data.vocabulary import MONTHS, Fact, NameMaker, format_day

FIRST_DAY = date(2023, 1, 9)  # LoCoMo's chats are dated 2022 and 2023
MAX_START_DAYS = 60  # so that conversations do not share their dates
GAP_DAYS = (8, 21)  # longer than the furthest `WHEN`, so events of chat sessions do not interleave
TURNS_PER_FACT = 4  # a quarter of the lines says something; the rest is what a summary drops
HABIT_CHANCE, TRICK_CHANCE = 0.15, 0.4  # of a telling; the rest are dated events
PHOTO_CHANCE = 0.1  # of the lines without a fact; about half of the share in LoCoMo (22%)
ADVERSARIAL_EVERY = 4  # officially 446 of 1,986 questions: between one in four and one in five
TEMPORAL_OF = (1, 4)  # of five dated events in turn, these are asked for their date


@dataclass(frozen=True)
class Telling:
    """A fact in its place: told by its subject (`speaker`) in one turn of one chat session."""

    fact: Fact
    speaker: str
    chat_session: int  # from 1, as in dia ids
    turn: int  # from 1

    @property
    def dia_id(self) -> str:
        """The official name of the turn."""
        return f"D{self.chat_session}:{self.turn}"


@dataclass(frozen=True)
class ConversationPlan:
    """Everything that is told in one conversation, before any chat."""

    speakers: tuple[str, str]
    days: tuple[date, ...]  # of the chat sessions
    num_turns: int  # of each chat session
    tellings: tuple[Telling, ...]  # in the order in which they are told

    def other(self, speaker: str) -> str:
        """The speaker who is not this one."""
        return self.speakers[1 - self.speakers.index(speaker)]

    def speaker_of(self, chat_session: int, turn: int) -> str:
        """Speakers alternate; who opens alternates too."""
        return self.speakers[(chat_session + turn) % 2]


@dataclass
class Stock:
    """What is still untold in a conversation; topics and objects are used up."""

    rng: random.Random
    names: NameMaker
    events: list[tuple[str, str]] = field(default_factory=list)
    objects: dict[str, list[str]] = field(default_factory=dict)
    habits: list[int] = field(default_factory=list)
    tricks: list[str] = field(default_factory=list)
    pets: list[Telling] = field(default_factory=list)  # adopted, and no trick told yet

    def __post_init__(self) -> None:
        """Shuffle the whole supply."""
        self.events = [
            (name, topic) for name, relation in CHAT_RELATIONS.items() for topic in relation.topics
        ]
        self.objects = {
            name: self.rng.sample(relation.objects, len(relation.objects))
            for name, relation in CHAT_RELATIONS.items()
        }
        self.habits = list(range(len(HABITS)))
        self.tricks = list(TRICKS)
        for supply in (self.events, self.habits, self.tricks):
            self.rng.shuffle(supply)

    def draw(self, speaker: str, chat_session: int, day: date) -> Fact | None:
        """The next fact for this speaker; None when nothing is left to tell."""
        choice = self.rng.random()
        pet = self._grown_pet(speaker, chat_session)
        if pet and self.tricks and choice < TRICK_CHANCE:
            self.pets.remove(pet)
            return Fact(speaker, TRICK, self.tricks.pop(), topic=pet.fact.object)
        if self.habits and (choice > 1 - HABIT_CHANCE or not self.events):
            index = self.habits.pop()
            return Fact(speaker, HABIT, HABITS[index].verdict, topic=str(index))
        if not self.events:
            return None
        name, topic = self.events.pop()
        objects = self.objects[name]
        days_before = self.rng.choice(list(WHEN))
        value = objects.pop() if objects else self.names.word()
        return Fact(speaker, name, value, topic, day, days_before)

    def _grown_pet(self, speaker: str, chat_session: int) -> Telling | None:
        """A pet of this speaker that came in an earlier chat session."""
        grown = (
            pet for pet in self.pets if pet.speaker == speaker and pet.chat_session < chat_session
        )
        return next(grown, None)


def plan_conversation(
    rng: random.Random, names: NameMaker, *, num_chat_sessions: int, num_turns: int
) -> ConversationPlan:
    """Decide who tells what, when."""
    speakers = (names.word(), names.word())
    day = FIRST_DAY + timedelta(days=rng.randrange(MAX_START_DAYS))
    days = []
    for _ in range(num_chat_sessions):
        days.append(day)
        day += timedelta(days=rng.randint(*GAP_DAYS))
    empty = ConversationPlan(speakers, tuple(days), num_turns, ())
    stock = Stock(rng, names)
    tellings: list[Telling] = []
    num_facts = max(1, num_turns // TURNS_PER_FACT)
    for chat_session in range(1, num_chat_sessions + 1):
        for turn in sorted(rng.sample(range(1, num_turns + 1), num_facts)):
            speaker = empty.speaker_of(chat_session, turn)
            fact = stock.draw(speaker, chat_session, days[chat_session - 1])
            if fact is None:
                continue
            tellings.append(Telling(fact, speaker, chat_session, turn))
            if fact.relation == PET:
                stock.pets.append(tellings[-1])
    return ConversationPlan(speakers, tuple(days), num_turns, tuple(tellings))


def plan_questions(plan: ConversationPlan, rng: random.Random) -> list[dict[str, Any]]:
    """Every question the plan can answer (or, for category 5, cannot), in random order."""
    questions = [*_direct_questions(plan), *_list_questions(plan)]
    rng.shuffle(questions)
    return questions


def _direct_questions(plan: ConversationPlan) -> Iterator[dict[str, Any]]:
    """One question for each telling, and now and then its adversarial twin."""
    pets = {telling.fact.object: telling for telling in plan.tellings if _is(telling, PET)}
    num_events = 0
    for telling in plan.tellings:
        fact = telling.fact
        if fact.relation == HABIT:
            yield _habit_question(telling)
        elif fact.relation == TRICK:
            pet = pets[fact.topic]
            text = TRICK_QUESTION.format(subject=fact.subject, species=pet.fact.topic)
            yield _question(text, fact.object, 1, [pet, telling])
        else:
            relation = CHAT_RELATIONS[fact.relation]
            asked = {"subject": fact.subject, "topic": fact.topic}
            if num_events % 5 in TEMPORAL_OF and fact.day is not None:
                text = relation.when_question.format(**asked)
                yield _question(text, _when(fact.day, fact.days_before), 2, [telling])
            else:
                yield _question(relation.question.format(**asked), fact.object, 4, [telling])
            if num_events % ADVERSARIAL_EVERY == 0:
                swapped = asked | {"subject": plan.other(fact.subject)}
                yield _question(relation.question.format(**swapped), fact.object, 5, [telling])
            num_events += 1


def _habit_question(telling: Telling) -> dict[str, Any]:
    """The gold gives its reason behind a semicolon, which scoring ignores."""
    habit = HABITS[int(telling.fact.topic)]
    subject = telling.fact.subject
    answer = f"{habit.verdict}; {habit.narration.format(subject=subject)}"
    return _question(habit.question.format(subject=subject), answer, 3, [telling])


def _list_questions(plan: ConversationPlan) -> Iterator[dict[str, Any]]:
    """Lists of everything one speaker told of a relation, over two chat sessions or more."""
    told: defaultdict[tuple[str, str], list[Telling]] = defaultdict(list)
    for telling in plan.tellings:
        told[telling.speaker, telling.fact.relation].append(telling)
    for (speaker, name), tellings in told.items():
        relation = CHAT_RELATIONS.get(name)
        if relation is None or not relation.list_question:
            continue
        if len({telling.chat_session for telling in tellings}) > 1:
            answer = ", ".join(telling.fact.object for telling in tellings)
            yield _question(relation.list_question.format(subject=speaker), answer, 1, tellings)


def _question(text: str, answer: str, category: int, tellings: list[Telling]) -> dict[str, Any]:
    """A question in the official schema: adversarial ones have a trap and no answer."""
    return {
        "question": text,
        "adversarial_answer" if category == 5 else "answer": answer,
        "evidence": [telling.dia_id for telling in tellings],
        "category": category,
    }


def _is(telling: Telling, relation: str) -> bool:
    return telling.fact.relation == relation


def render_row(plan: ConversationPlan, rng: random.Random, sample_id: str) -> dict[str, Any]:
    """Write a planned conversation in the official schema."""
    conversation: dict[str, Any] = {
        "speaker_a": plan.speakers[0],
        "speaker_b": plan.speakers[1],
    }
    for number, day in enumerate(plan.days, start=1):
        conversation[f"session_{number}_date_time"] = _clock(rng) + " on " + _comma_day(day)
        conversation[f"session_{number}"] = _render_turns(plan, number, rng)
    return {
        "sample_id": sample_id,
        "conversation": conversation,
        "qa": plan_questions(plan, rng),
        **_summaries(plan),
    }


def _render_turns(plan: ConversationPlan, number: int, rng: random.Random) -> list[dict[str, Any]]:
    told = {telling.turn: telling for telling in plan.tellings if telling.chat_session == number}
    turns = []
    for turn in range(1, plan.num_turns + 1):
        speaker = plan.speaker_of(number, turn)
        parts = []
        if turn == 1:
            parts.append(_chatter(GREETINGS, plan.other(speaker), rng))
        if turn - 1 in told:
            parts.append(_chatter(REACTIONS, plan.other(speaker), rng))
        if turn in told:
            parts.append(tell(told[turn].fact))
        if turn == plan.num_turns:
            parts.append(_chatter(GOODBYES, plan.other(speaker), rng))
        elif turn not in told:
            parts.append(_chatter(CHATTER, plan.other(speaker), rng))
        line: dict[str, Any] = {
            "speaker": speaker,
            "dia_id": f"D{number}:{turn}",
            "text": " ".join(parts),
        }
        if turn not in told and rng.random() < PHOTO_CHANCE:
            line["blip_caption"] = _chatter(CAPTIONS, "", rng)
        turns.append(line)
    return turns


def tell(fact: Fact) -> str:
    """The sentence in which the subject of a fact tells it on its day."""
    if fact.relation == HABIT:
        return HABITS[int(fact.topic)].telling
    if fact.relation == TRICK:
        return TRICK_TELLING.format(topic=fact.topic, object=fact.object)
    when, _ = WHEN[fact.days_before]
    relation = CHAT_RELATIONS[fact.relation]
    return relation.telling.format(when=when, topic=fact.topic, object=fact.object)


def narrate(fact: Fact) -> str:
    """The same in the third person, and for readers of another day."""
    if fact.relation == HABIT:
        return HABITS[int(fact.topic)].narration.format(subject=fact.subject) + "."
    is_trick = fact.relation == TRICK
    template = TRICK_NARRATION if is_trick else CHAT_RELATIONS[fact.relation].narration
    when = f" ({_when(fact.day, fact.days_before)})" if fact.day is not None else ""
    return template.format(subject=fact.subject, topic=fact.topic, object=fact.object) + when + "."


def _when(told: date, days_before: int) -> str:
    """When something happened, by the day on which it was told: the day before 8 May 2023."""
    _, before = WHEN[days_before]
    return before + format_day(told)


def narrate_chat(plan: ConversationPlan, day: date) -> str:
    """Who talked when, as summaries of a chat session begin."""
    return f"{plan.speakers[0]} and {plan.speakers[1]} talked on {format_day(day)}."


def _summaries(plan: ConversationPlan) -> dict[str, Any]:
    """The three summaries of the official files, written from the plan."""
    events: dict[str, Any] = {}
    observations: dict[str, Any] = {}
    summaries: dict[str, Any] = {}
    for number, day in enumerate(plan.days, start=1):
        told = [telling for telling in plan.tellings if telling.chat_session == number]
        by_speaker = {
            speaker: [telling for telling in told if telling.speaker == speaker]
            for speaker in plan.speakers
        }
        events[f"events_session_{number}"] = {
            **{who: [narrate(t.fact) for t in tellings] for who, tellings in by_speaker.items()},
            "date": _comma_day(day),
        }
        observations[f"session_{number}_observation"] = {
            who: [[narrate(t.fact), t.dia_id] for t in tellings]
            for who, tellings in by_speaker.items()
        }
        summaries[f"session_{number}_summary"] = " ".join(
            [
                narrate_chat(plan, day),
                *(narrate(telling.fact) for telling in told),
            ]
        )
    return {"event_summary": events, "observation": observations, "session_summary": summaries}


def _chatter(templates: tuple[str, ...], other: str, rng: random.Random) -> str:
    words = {"mood": rng.choice(MOODS), "chore": rng.choice(CHORES), "week": rng.choice(WEEKS)}
    return rng.choice(templates).format(other=other, **words)


def _clock(rng: random.Random) -> str:
    """A time of day in the official form: 1:56 pm."""
    half = rng.choice(("am", "pm"))
    return f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d} {half}"


def _comma_day(day: date) -> str:
    """A date as chat session headings write it: 8 May, 2023."""
    return f"{day.day} {MONTHS[day.month - 1]}, {day.year}"

"""The synthetic sets: deterministic, official in form, answerable and unambiguous."""

import itertools
import json
import random
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.artifacts import digest
from blockwise.config.datasets import MalformedRows, SyntheticSource
from blockwise.data import encyclopedia, smalltalk, synthetic_locomo
from blockwise.data.formats import hotpotqa, locomo
from blockwise.data.synthetic import hotpotqa_rows, locomo_rows
from blockwise.data.synthetic_hotpotqa import plan_row
from blockwise.data.synthetic_locomo import plan_conversation
from blockwise.data.vocabulary import (
    CODAS,
    MONTHS,
    NUM_OPENINGS_APART,
    ONSETS,
    VOWELS,
    NameMaker,
    format_day,
)

SOURCE = SyntheticSource(kind="synthetic", seed=3, num_rows=60)
CHATS = SyntheticSource(kind="synthetic", seed=3, num_rows=8)


@pytest.fixture(scope="module")
def hotpotqa_set():
    return hotpotqa_rows(SOURCE)


@pytest.fixture(scope="module")
def locomo_set():
    return locomo_rows(CHATS)


def holds(text, phrase):
    return re.search(rf"\b{re.escape(phrase)}\b", text) is not None


def paragraphs(row):
    return {title: "".join(sentences) for title, sentences in row["context"]}


# --- both -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [hotpotqa_rows, locomo_rows])
def test_a_seed_is_the_whole_story(make):
    source = SyntheticSource(kind="synthetic", seed=5, num_rows=6)
    text = json.dumps(make(source))
    assert json.dumps(make(source)) == text
    assert json.dumps(make(source.model_copy(update={"seed": 6}))) != text
    longer = make(source.model_copy(update={"num_rows": 9}))
    assert json.dumps(longer[:6]) == text


@pytest.mark.parametrize(
    ("make", "golden"),
    [
        (hotpotqa_rows, "1d56298504afa00b1aa8f5cccd43adad"),
        (locomo_rows, "c9d05832d2fbabc973b59526ca5697ef"),
    ],
)
def test_bytes_are_the_same_in_every_process(make, golden):
    # Cells are keyed by content: whoever edits a template or a draw re-runs every cell, and
    # then means to change this digest too.
    assert digest(make(SyntheticSource(kind="synthetic", seed=0, num_rows=2))) == golden


def test_invented_words_are_no_words_of_the_templates():
    invented = set(map("".join, itertools.product(ONSETS, VOWELS, ONSETS, VOWELS, CODAS)))
    templates = Path(encyclopedia.__file__).read_text() + Path(smalltalk.__file__).read_text()
    assert invented.isdisjoint(re.findall(r"[a-z]+", templates.lower()))


@given(st.integers())
@settings(max_examples=10, deadline=None)
def test_a_name_maker_never_repeats_a_word(seed):
    maker = NameMaker(random.Random(seed))
    words = [maker.word() for _ in range(2000)]
    assert len(set(words)) == len(words)


def test_names_in_a_row_open_differently():
    maker = NameMaker(random.Random(3))
    openings = [opening_of(maker.word()) for _ in range(3000)]
    for start in range(0, 3000 - NUM_OPENINGS_APART, 97):
        assert len(set(openings[start : start + NUM_OPENINGS_APART])) == NUM_OPENINGS_APART


def opening_of(word):
    letters = "|".join(ONSETS)
    return re.match(
        rf"({letters})({'|'.join(sorted(VOWELS, key=len)[::-1])})({letters})", word.lower()
    )[0]


# --- HotpotQA ---------------------------------------------------------------------------


def test_hotpotqa_schema_is_official(hotpotqa_set):
    keys = {"_id", "question", "answer", "type", "level", "supporting_facts", "context"}
    for row in hotpotqa_set:
        assert set(row) == keys
        assert len(paragraphs(row)) == len(row["context"]) == 10
        assert all(len(sentences) == 5 for _, sentences in row["context"])
        for title, position in row["supporting_facts"]:
            assert position in range(len(dict(row["context"])[title]))
    documents, skipped = hotpotqa.FORMAT.read(
        hotpotqa_set, origin="generator", malformed=MalformedRows.REFUSE
    )
    assert (len(documents), skipped) == (60, [])


def test_bridge_questions_need_both_paragraphs(hotpotqa_set):
    rows = [row for row in hotpotqa_set if row["type"] == "bridge"]
    assert len(rows) == 40
    for row in rows:
        text = paragraphs(row)
        (first, first_position), (second, second_position) = row["supporting_facts"]
        first_sentence = dict(row["context"])[first][first_position]
        second_sentence = dict(row["context"])[second][second_position]
        # the question names the first paragraph, the first fact names the second one
        assert holds(row["question"], first)
        assert not holds(row["question"], second)
        assert holds(first_sentence, second)
        assert holds(second_sentence, row["answer"])
        # and the answer stands in the second paragraph only
        assert [title for title in text if holds(text[title], row["answer"])] == [second]


def test_comparison_questions_follow_from_their_two_facts(hotpotqa_set):
    rows = [row for row in hotpotqa_set if row["type"] == "comparison"]
    assert len(rows) == 20
    closed = Counter(row["answer"] for row in rows if row["answer"] in ("yes", "no"))
    assert sum(closed.values()) == 10
    assert set(closed) == {"yes", "no"}
    for row in rows:
        facts = {
            title: dict(row["context"])[title][position].replace(title, "").strip()
            for title, position in row["supporting_facts"]
        }
        left, right = facts.values()
        assert all(holds(row["question"], title) for title in facts)
        if row["answer"] in ("yes", "no"):
            assert (left == right) == (row["answer"] == "yes")
            continue
        numbers = {title: int(re.search(r"\d+", text)[0]) for title, text in facts.items()}
        chosen = min if " first" in row["question"] else max
        assert row["answer"] == chosen(numbers, key=numbers.__getitem__)


def test_hotpotqa_questions_are_unambiguous():
    names = NameMaker(random.Random("names"))
    plans = [plan_row(random.Random(f"row {index}"), names, index) for index in range(60)]
    facts = [fact for plan in plans for entity in plan.entities for fact in entity.facts]
    # one value for each subject and relation, and no name for two things, over all rows
    assert len({(fact.subject, fact.relation) for fact in facts}) == len(facts)
    titles = [entity.name for plan in plans for entity in plan.entities]
    assert len(set(titles)) == len(titles)
    questions = [plan.puzzle.question for plan in plans]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("num_sentences", [1, 2, 3, 12])
def test_hotpotqa_paragraphs_have_the_wanted_length(num_sentences):
    rows = hotpotqa_rows(
        SyntheticSource(kind="synthetic", num_rows=9, sentences_per_paragraph=num_sentences)
    )
    for row in rows:
        assert {len(sentences) for _, sentences in row["context"]} == {num_sentences}
        for title, position in row["supporting_facts"]:
            assert title in dict(row["context"])[title][position]
        if row["type"] == "bridge":
            title, position = row["supporting_facts"][1]
            assert holds(dict(row["context"])[title][position], row["answer"])


# --- LoCoMo -----------------------------------------------------------------------------


def turns_of(row):
    return {
        line["dia_id"]: line
        for key, lines in row["conversation"].items()
        if re.fullmatch(r"session_\d+", key)
        for line in lines
    }


def day_of(row, dia_id):
    number = dia_id[1:].partition(":")[0]
    text = row["conversation"][f"session_{number}_date_time"]
    match = re.fullmatch(r"1?\d:\d\d [ap]m on (\d+) (\w+), (\d{4})", text)
    return date(int(match[3]), MONTHS.index(match[2]) + 1, int(match[1]))


def questions_of(rows, category):
    return [(row, qa) for row in rows for qa in row["qa"] if qa["category"] == category]


def test_locomo_schema_is_official(locomo_set):
    for row in locomo_set:
        assert set(row) == {
            "sample_id",
            "conversation",
            "qa",
            "event_summary",
            "observation",
            "session_summary",
        }
        turns = turns_of(row)
        assert len(turns) == 8 * 16
        speakers = {row["conversation"]["speaker_a"], row["conversation"]["speaker_b"]}
        assert {line["speaker"] for line in turns.values()} == speakers
        assert any("blip_caption" in line for line in turns.values())
        for qa in row["qa"]:
            assert qa["evidence"]
            assert set(qa["evidence"]) <= set(turns)
            assert ("answer" in qa) == (qa["category"] != 5)
            assert ("adversarial_answer" in qa) == (qa["category"] == 5)
        days = [day_of(row, f"D{number}:1") for number in range(1, 9)]
        assert days == sorted(days)
    documents, skipped = locomo.FORMAT.read(
        locomo_set, origin="generator", malformed=MalformedRows.REFUSE
    )
    assert (len(documents), skipped) == (64, [])


def test_every_conversation_has_every_category(locomo_set):
    for row in locomo_set:
        assert {qa["category"] for qa in row["qa"]} == {1, 2, 3, 4, 5}


def test_single_hop_answers_stand_in_their_evidence_and_nowhere_else(locomo_set):
    for row, qa in questions_of(locomo_set, 4):
        turns = turns_of(row)
        (dia_id,) = qa["evidence"]
        assert holds(turns[dia_id]["text"], qa["answer"])
        assert holds(qa["question"], turns[dia_id]["speaker"])
        told = [line for line in turns.values() if holds(line["text"], qa["answer"])]
        if qa["answer"][0].isupper():  # an invented name; a pet's may come again with its trick
            assert all(line["speaker"] == turns[dia_id]["speaker"] for line in told)


def test_multi_hop_answers_need_two_chat_sessions(locomo_set):
    for row, qa in questions_of(locomo_set, 1):
        turns = turns_of(row)
        sessions = {dia_id.partition(":")[0] for dia_id in qa["evidence"]}
        assert len(sessions) > 1
        evidence = [turns[dia_id]["text"] for dia_id in qa["evidence"]]
        for part in qa["answer"].split(", "):
            assert sum(holds(text, part) for text in evidence) == 1
        if "learned" in qa["question"]:
            adoption, trick = evidence
            pet = re.search(r"named it (\w+)\.", adoption)[1]
            assert holds(trick, f"{pet} has learned to {qa['answer']}")
            assert pet not in qa["question"]


def test_temporal_answers_follow_from_the_chat_session_and_the_telling(locomo_set):
    said = dict(smalltalk.WHEN.values())
    for row, qa in questions_of(locomo_set, 2):
        (dia_id,) = qa["evidence"]
        text = turns_of(row)[dia_id]["text"]
        (before,) = (said[phrase] for phrase in said if re.search(rf"{phrase} (I|my|for a) ", text))
        assert qa["answer"] == before + format_day(day_of(row, dia_id))


def test_open_domain_answers_rest_on_the_stated_habit(locomo_set):
    by_telling = {habit.telling: habit for habit in smalltalk.HABITS}
    for row, qa in questions_of(locomo_set, 3):
        line = turns_of(row)[qa["evidence"][0]]
        (habit,) = (by_telling[telling] for telling in by_telling if telling in line["text"])
        assert qa["question"] == habit.question.format(subject=line["speaker"])
        assert qa["answer"].split(";")[0] == habit.verdict


def test_adversarial_questions_have_no_answer(locomo_set):
    for row, qa in questions_of(locomo_set, 5):
        line = turns_of(row)[qa["evidence"][0]]
        assert line["speaker"] not in qa["question"]  # asked of the other speaker
        assert holds(line["text"], qa["adversarial_answer"])
        answerable = {other["question"] for other in row["qa"] if other["category"] != 5}
        assert qa["question"] not in answerable


def test_locomo_questions_are_unambiguous(locomo_set):
    questions = [qa["question"] for row in locomo_set for qa in row["qa"]]
    assert len(set(questions)) == len(questions)
    speakers = [
        row["conversation"][key] for row in locomo_set for key in ("speaker_a", "speaker_b")
    ]
    assert len(set(speakers)) == len(speakers)
    names = NameMaker(random.Random("names"))
    plan = plan_conversation(random.Random("plan"), names, num_chat_sessions=40, num_turns=20)
    events = [(telling.fact.relation, telling.fact.topic) for telling in plan.tellings]
    assert len(set(events)) == len(events)
    # everything there is to tell has been told, and the generator went on without it
    assert len(events) < 40 * (20 // synthetic_locomo.TURNS_PER_FACT)


def test_list_answers_are_complete(locomo_set):
    for row, qa in questions_of(locomo_set, 1):
        match = re.fullmatch(r"Which towns has (\w+) visited by train\?", qa["question"])
        if not match:
            continue
        told = [
            line["dia_id"]
            for line in turns_of(row).values()
            if line["speaker"] == match[1] and "on the slow train to" in line["text"]
        ]
        assert qa["evidence"] == told


def test_official_summaries_narrate_the_plan(locomo_set):
    row = locomo_set[0]
    turns = turns_of(row)
    observed = [
        (speaker, dia_id)
        for session in row["observation"].values()
        for speaker, lines in session.items()
        for _, dia_id in lines
    ]
    assert observed
    assert all(turns[dia_id]["speaker"] == speaker for speaker, dia_id in observed)
    assert row["event_summary"].keys() == {f"events_session_{n}" for n in range(1, 9)}
    assert row["session_summary"].keys() == {f"session_{n}_summary" for n in range(1, 9)}


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_small_conversations_of_any_shape_can_be_read(num_sessions, num_turns, seed):
    source = SyntheticSource(
        kind="synthetic",
        seed=seed,
        num_rows=2,
        chat_sessions_per_row=num_sessions,
        turns_per_chat_session=num_turns,
    )
    rows = locomo_rows(source)
    documents, _ = locomo.FORMAT.read(rows, origin="generator", malformed=MalformedRows.REFUSE)
    assert len(documents) == 2 * num_sessions
    assert all(len(turns_of(row)) == num_sessions * num_turns for row in rows)

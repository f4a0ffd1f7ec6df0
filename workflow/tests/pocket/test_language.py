"""The language of the pocket backbones: splits, scenes, lessons, tokens."""

import re
from pathlib import Path
from random import Random

import pytest
import torch

from blockwise.compaction.layouts import load_layout
from blockwise.config.datasets import Split, SyntheticSource
from blockwise.config.pocket import PocketRecipe
from blockwise.data.formats.locomo import NO_INFORMATION
from blockwise.data.synthetic import hotpotqa_rows, locomo_rows
from blockwise.data.vocabulary import split_of
from blockwise.models.renderer import Renderer
from blockwise.pocket.attention import reaches_of
from blockwise.pocket.files import taught_prompts
from blockwise.pocket.lessons import (
    LAYOUTS,
    NOTHING_TO_KEEP,
    choose_probes,
    make_lessons,
    make_recitals,
    opening_turns,
)
from blockwise.pocket.scenes import EVERY_FACT, LEVELS, UNSTATED, SceneFormat, make_scene
from blockwise.pocket.sequences import UNLABELLED, LessonEncoder, in_a_row, in_batches
from blockwise.pocket.tokenizer import WORD_PATTERN, is_name, make_tokenizer
from blockwise.pocket.train import make_model

PROMPTS = taught_prompts(Path("config/prompts"))
FORMATS = tuple(SceneFormat)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(PROMPTS)


def names_in(text):
    return {word for word in re.findall(r"\w+", text) if is_name(word)}


def lesson_texts(lesson):
    return [
        text
        for messages, reply in lesson.conversations
        for text in (*(message["content"] for message in messages), reply.thought, reply.text)
    ]


def sentences(notes):
    return {note.sentence for note in notes}


@pytest.mark.parametrize("split", tuple(Split))
def test_every_name_of_a_text_belongs_to_its_split(split):
    rng = Random(0)
    lessons = [*make_lessons(rng, 24, split, PROMPTS), make_recitals(rng, split, 40, 1)]
    texts = [text for lesson in lessons for text in lesson_texts(lesson)]
    source = SyntheticSource(kind="synthetic", split=split, num_rows=3)
    texts += map(str, [*hotpotqa_rows(source), *locomo_rows(source)])
    names = set().union(*map(names_in, texts))
    assert len(names) > 100
    assert {split_of(name) for name in names} == {split}


def test_splits_share_no_fact():
    # A fact is a subject, a relation and an object, and its subject is a name of its split.
    found = {
        split: sentences(
            note
            for dataset_format in FORMATS
            for passage in make_scene(dataset_format, Random(1), 40, split).passages
            for note in passage.notes
        )
        for split in Split
    }
    assert all(len(facts) > 40 for facts in found.values())
    assert not found[Split.TRAIN] & found[Split.TEST]
    assert not found[Split.TRAIN] & found[Split.VALIDATION]
    assert not found[Split.VALIDATION] & found[Split.TEST]


@pytest.mark.parametrize("dataset_format", FORMATS)
@pytest.mark.parametrize("num_facts", [1, 2, 7, 12, 48])
def test_a_scene_states_about_so_many_facts(dataset_format, num_facts):
    for seed in range(5):
        scene = make_scene(dataset_format, Random(seed), num_facts, Split.TRAIN)
        facts = [note for passage in scene.passages for note in passage.notes if note.source]
        assert 1 <= len(facts) <= num_facts + 4  # the last document is rounded up


def test_notes_of_a_document_are_what_it_says():
    scene = make_scene(SceneFormat.HOTPOTQA, Random(3), 30, Split.TRAIN)
    for passage in scene.passages:
        positions = [passage.text.index(note.sentence) for note in passage.notes]
        assert positions == sorted(positions)


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_reasons_of_an_answer_are_known_and_hold_it(dataset_format):
    for seed in range(6):
        rng = Random(seed)
        scene = make_scene(dataset_format, rng, 24, Split.TRAIN)
        notes = [note for passage in scene.passages for note in passage.notes]
        known = rng.sample(notes, len(notes) // 2)
        kinds = set()
        for probe in scene.probes(known, rng):
            kinds.add(probe.kind)
            *others, last = probe.reasons
            assert set(others) <= sentences(known)
            assert (UNSTATED in last) == (probe.kind == "absent")
            assert (last in sentences(known)) == (probe.kind != "absent")
            if probe.kind in {"single", "two"}:
                assert probe.answer in last
            assert (probe.answer == NO_INFORMATION) == (probe.kind == "absent")
        assert {"single", "absent"} <= kinds


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_what_is_absent_cannot_be_known(dataset_format):
    rng = Random(4)
    scene = make_scene(dataset_format, rng, 30, Split.TRAIN)
    notes = [note for passage in scene.passages for note in passage.notes]
    answered = {p.question for p in scene.probes(notes, rng) if p.kind in {"single", "two"}}
    absent = {p.question for p in scene.probes(notes, rng) if p.kind == "absent"}
    assert absent
    assert not absent & answered


def test_verbosities_keep_more_and_more():
    rng = Random(5)
    scene = make_scene(SceneFormat.HOTPOTQA, rng, 60, Split.TRAIN, sentences_per_paragraph=3)
    notes = [note for passage in scene.passages for note in passage.notes]
    kept = [sum(note.level <= level for note in notes) for level in LEVELS.values()]
    assert kept == sorted(set(kept))  # each strictly more than the one before
    assert kept[LEVELS["detailed"]] == sum(note.source is not None for note in notes)
    assert kept[-1] == len(notes)


def test_kinds_of_questions_are_mixed_and_none_is_asked_twice():
    rng = Random(6)
    scene = make_scene(SceneFormat.HOTPOTQA, rng, 60, Split.TRAIN, sentences_per_paragraph=2)
    notes = [note for passage in scene.passages for note in passage.notes]
    chosen = choose_probes(scene.probes(notes, rng), rng)
    assert len({probe.question for probe in chosen}) == len(chosen)
    assert {"single", "two", "absent"} <= {probe.kind for probe in chosen}


# --- compaction lessons -----------------------------------------------------------------


def compaction_lesson(seed, num_facts=30):
    made = make_lessons(Random(seed), num_facts, Split.TRAIN, PROMPTS)
    return next(lesson for lesson in made if lesson.skill == "compact")


@pytest.mark.parametrize("seed", range(12))
def test_every_layout_gets_the_same_lesson(seed):
    replies = [reply for _, reply in compaction_lesson(seed).conversations]
    assert [reply.kind for reply in replies] == list(LAYOUTS)
    assert len({reply.text for reply in replies}) == 1
    assert len({reply.level for reply in replies}) == 1
    assert all(load_layout(name) for name in LAYOUTS)


@pytest.mark.parametrize("seed", range(12))
def test_a_summary_says_what_its_target_says_and_nothing_else(seed):
    # `independent` shows the target and nothing else, so all of the summary stands in it.
    messages, reply = compaction_lesson(seed).conversations[0]
    assert reply.kind == "independent"
    shown = " ".join(message["content"] for message in messages[1:-1])
    if reply.text != NOTHING_TO_KEEP:
        assert names_in(reply.text) <= names_in(shown)
        for part in reply.text.rstrip(".").split(". "):
            if "talked on" not in part and "named" not in shown:
                assert names_in(part), part


def test_summaries_of_an_opening_say_what_is_known():
    for seed in range(6):
        rng = Random(seed)
        scene = make_scene(SceneFormat.HOTPOTQA, rng, 30, Split.TRAIN)
        turns, known = opening_turns(rng, scene, len(scene.passages))
        assert [turn.role for turn in turns] == ["system", "user"]
        assert all(note.sentence in turns[1].text for note in known)
        told = {note for passage in scene.passages for note in passage.notes}
        lost = {n for n in told - set(known) if n.level <= EVERY_FACT}
        assert not any(note.sentence in turns[1].text for note in lost)


# --- tokens -----------------------------------------------------------------------------


def test_every_text_round_trips(tokenizer):
    rng = Random(8)
    lessons = make_lessons(rng, 40, Split.TEST, PROMPTS)
    texts = [text for lesson in lessons for text in lesson_texts(lesson)]
    texts += ["naïve 日本 🙂  x\n\n y\t z", "Hello  World ", "a_b-c 12345 x", ""]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_the_language_needs_no_bytes(tokenizer):
    rng = Random(9)
    num_bytes = num_tokens = 0
    for _ in range(20):
        for lesson in make_lessons(rng, 40, Split.TEST, PROMPTS):
            for ids in tokenizer(lesson_texts(lesson), add_special_tokens=False)["input_ids"]:
                pieces = tokenizer.convert_ids_to_tokens(ids)
                num_bytes += sum(piece.startswith("<0x") for piece in pieces)
                num_tokens += len(pieces)
    assert num_bytes < num_tokens / 10_000


def test_a_name_opens_with_the_same_token_wherever_it_stands(tokenizer):
    firsts = set()
    for text in ("Bafelk ", "Bafelk.", "\nBafelk\n", "of Bafelk's", "<TARGET_BLOCK>\nBafelk"):
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
        firsts |= {piece for piece in pieces if piece.startswith("Ba")}
    assert firsts == {"Baf"}


@pytest.mark.parametrize("number", ["2125", "1923", "17", "8"])
def test_a_number_is_the_same_token_wherever_it_stands(tokenizer, number):
    for text in (number, f"{number} towns", f"in {number}.", f"({number}, Aa)"):
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
        assert number in pieces, text


def test_other_languages_fall_back_to_bytes(tokenizer):
    ids = tokenizer("Schiffahrtsgesellschaft", add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert all(re.fullmatch(r"<0x[0-9A-F]{2}>", piece) or len(piece) <= 2 for piece in pieces)


def test_the_tags_of_thinking_stay_in_a_text_without_its_special_tokens(tokenizer):
    ids = tokenizer("<think>A was b.</think>no<|eot|>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>A was b.</think>no"
    assert tokenizer.convert_tokens_to_ids("</think>") in ids


def test_no_piece_crosses_a_word(tokenizer):
    for piece in tokenizer.get_vocab():
        if not piece.startswith("<"):
            assert re.fullmatch(WORD_PATTERN, piece), repr(piece)


def test_lessons_are_written_as_the_chat_template_writes_them(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    renderer = Renderer(str(tmp_path))
    encoder = LessonEncoder(tokenizer, reasoning=True)
    for lesson in make_lessons(Random(10), 12, Split.TRAIN, PROMPTS):
        encoded = encoder.encode(lesson)
        history, *segments = encoded.segments
        assert (history.start, history.fork, segments[-1].stop) == (0, 0, len(encoded.ids))
        for (messages, reply), segment in zip(lesson.conversations, segments, strict=True):
            ids = encoded.ids[: segment.fork] + encoded.ids[segment.start : segment.stop]
            prompt = renderer.render(messages, add_generation_prompt=True)
            assert ids[: len(prompt)] == prompt
            said = tokenizer.decode(ids[len(prompt) :])
            assert said == f"<think>{reply.thought}</think>{reply.text}<|eot|>"
            assert segment.fork > 0
            positions = encoded.positions[segment.start : segment.stop]
            assert positions == list(range(segment.fork, len(ids)))


def test_what_conversations_share_with_their_history_is_read_once(tokenizer):
    encoder = LessonEncoder(tokenizer, reasoning=False)
    for lesson in make_lessons(Random(13), 30, Split.TRAIN, PROMPTS):
        history, *segments = encoder.encode(lesson).segments
        forks = [segment.fork for segment in segments]
        if lesson.skill == "answer":
            assert set(forks) == {history.stop}
        else:
            suffix_full = forks[LAYOUTS.index("suffix_full")]
            assert suffix_full == max(forks) and min(forks) < history.stop


def test_a_row_of_lessons_means_what_its_conversations_mean_alone(tokenizer):
    recipe = PocketRecipe.model_validate(
        {
            "reasoning": True,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_size": 16,
            "num_steps": 1,
            "step_tokens": 1,
            "learning_rate": 1e-3,
            "decay_steps": 1,
        }
    )
    model = make_model(recipe, tokenizer)
    encoder = LessonEncoder(tokenizer, reasoning=True)
    lessons = [encoder.encode(one) for one in make_lessons(Random(14), 9, Split.TRAIN, PROMPTS)]
    ids, positions, _ = in_a_row(lessons)
    reaches = reaches_of([one.segments for one in lessons], torch.float32)
    asked = {"use_cache": False}
    with torch.no_grad():
        row = model(input_ids=ids, position_ids=positions, reaches=reaches, **asked).logits[0]
        model.set_attn_implementation("eager")
        opening = 0
        for lesson in lessons:
            for segment in lesson.segments[1:]:
                alone = lesson.ids[: segment.fork] + lesson.ids[segment.start : segment.stop]
                logits = model(input_ids=torch.tensor([alone]), **asked).logits[0, segment.fork :]
                own = row[opening + segment.start : opening + segment.stop]
                torch.testing.assert_close(own, logits, rtol=1e-4, atol=1e-4)
            opening += len(lesson.ids)


def test_replies_are_labelled_and_nothing_else(tokenizer):
    encoder = LessonEncoder(tokenizer, reasoning=False)
    for lesson in make_lessons(Random(11), 8, Split.TRAIN, PROMPTS):
        encoded = encoder.encode(lesson)
        labelled = [label for label in encoded.labels if label != UNLABELLED]
        said = "".join(f"{reply.text}<|eot|>" for _, reply in lesson.conversations)
        assert tokenizer.decode(labelled) == said
        assert len(encoded.kinds) == len(labelled)
        pairs = zip(encoded.ids, encoded.labels, strict=True)
        assert all(label in (UNLABELLED, token) for token, label in pairs)


def test_batches_hold_every_lesson_and_are_bounded(tokenizer):
    encoder = LessonEncoder(tokenizer, reasoning=False)
    lessons = [encoder.encode(one) for one in make_lessons(Random(12), 20, Split.TRAIN, PROMPTS)]
    batches = in_batches(lessons, 2000)
    assert [one for batch in batches for one in batch] == lessons
    for batch in batches:
        ids, positions, labels = in_a_row(batch)
        assert ids.shape == positions.shape == labels.shape
        assert len(batch) == 1 or ids.numel() <= 2000

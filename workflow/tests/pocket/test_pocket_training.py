"""Training a pocket backbone: the curriculum, resuming, and the files that come out."""

import asyncio
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from blockwise.artifacts import digest_tree, read_model, write_model
from blockwise.config.load import load_profile
from blockwise.config.pocket import PocketRecipe
from blockwise.errors import ArtifactError, CompactionError
from blockwise.models.renderer import Renderer
from blockwise.pocket import train as training
from blockwise.pocket.card import write_card
from blockwise.pocket.examine import examine, is_right, questions, sentences_of
from blockwise.pocket.files import (
    CARD_FILE,
    MODEL_FOLDER,
    SKILLS_FILE,
    TRAINING_FILE,
    recipe_digest,
    taught_prompts,
)
from blockwise.pocket.records import PocketSkills, PocketTraining, SkillResult
from blockwise.pocket.scenes import Probe
from blockwise.pocket.tokenizer import make_tokenizer
from blockwise.pocket.train import FIRST_WORDS, MAX_WORDS, PocketTrainer, train
from blockwise.pocket.train_backbone import train_pocket

PROMPTS = taught_prompts(Path("config/prompts"))
RECIPE = PocketRecipe.model_validate(
    {
        "reasoning": True,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_size": 16,
        "context_window_tokens": 2048,
        "num_steps": 6,
        "step_tokens": 400,
        "checkpoint_every_steps": 2,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "decay_steps": 2,
    }
)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(PROMPTS)


@pytest.fixture
def trainer(tokenizer):
    return PocketTrainer(RECIPE, tokenizer, PROMPTS)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(tokenizer, trainer, tmp_path):
    train(trainer, tmp_path / "whole.pt", "key")
    killed = PocketTrainer(RECIPE, tokenizer, PROMPTS)
    with pytest.raises(KeyboardInterrupt):
        train(killed, tmp_path / "cut.pt", "key", _kill_after(3))
    resumed = PocketTrainer(RECIPE, tokenizer, PROMPTS)
    resumed.resume(tmp_path / "cut.pt", "key")
    assert resumed.progress.step == 2  # the last checkpoint, not the last step
    train(resumed, tmp_path / "cut.pt", "key")
    assert same(weights(trainer.model), weights(resumed.model))
    assert resumed.progress.curve == trainer.progress.curve
    assert (resumed.progress.num_resumes, trainer.progress.num_resumes) == (1, 0)


def _kill_after(num_steps):
    told = []

    def report(num_tokens, state):
        told.append(num_tokens)
        if len(told) == num_steps:
            raise KeyboardInterrupt

    return report


def test_checkpoints_of_another_recipe_or_damaged_ones_are_refused(tokenizer, trainer, tmp_path):
    path = tmp_path / "run.pt"
    trainer.save(path, "another")
    with pytest.raises(ArtifactError, match=r"another recipe; delete .*run\.pt"):
        trainer.resume(path, "key")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"cannot be read.*delete"):
        trainer.resume(path, "key")


def test_lessons_follow_from_seed_step_and_length(tokenizer, trainer):
    other = PocketTrainer(RECIPE, tokenizer, PROMPTS)
    trainer.progress.max_words = other.progress.max_words = MAX_WORDS
    trainer.progress.max_facts = other.progress.max_facts = 6
    assert trainer.lessons() == other.lessons()
    other.progress.step += 1
    assert trainer.lessons() != other.lessons()


def test_recitals_come_first_and_stay_until_copying_is_safe(trainer):
    assert {lesson.skill for lesson in trainer.lessons()} == {"recite"}
    trainer.progress.max_words = MAX_WORDS
    assert {lesson.skill for lesson in trainer.lessons()} == {"recite", "answer", "compact"}
    trainer.progress.max_facts = RECIPE.curriculum.reciting_facts + 1
    assert {lesson.skill for lesson in trainer.lessons()} == {"answer", "compact"}


def test_scenes_grow_by_accuracy_and_by_nothing_else(trainer, monkeypatch):
    monkeypatch.setattr(training, "MEMORY", 0.0)
    progress, curriculum = trainer.progress, RECIPE.curriculum
    trainer._grow({"recite": [1, 0]})
    assert progress.max_words == FIRST_WORDS
    while progress.max_words < MAX_WORDS:
        before = progress.max_words
        trainer._grow({"recite": [1, 1]})
        assert progress.max_words > before
    assert progress.max_facts == curriculum.start_facts
    trainer._grow({"compact": [1], "single": [1, 0]})
    assert progress.max_facts == curriculum.start_facts
    for _ in range(60):
        trainer._grow({"compact": [1], "single": [1], "two": [0]})
    assert progress.max_facts == curriculum.max_facts


def test_a_step_learns_what_it_is_shown(tokenizer, monkeypatch):
    recipe = RECIPE.model_copy(update={"num_steps": 100})
    trainer = PocketTrainer(recipe, tokenizer, PROMPTS)
    lessons = trainer.lessons()
    monkeypatch.setattr(trainer, "lessons", lambda: lessons)
    losses = [trainer.step() for _ in range(50)]
    assert losses[-1] < losses[0] / 2


def test_the_digest_stands_for_what_is_taught_and_not_for_what_is_not(tokenizer):
    digest = recipe_digest(RECIPE, tokenizer, PROMPTS)
    assert digest == recipe_digest(RECIPE, tokenizer, PROMPTS)
    kept = {"checkpoint_every_steps": 1, "examination": {"num_block_scenes": 1}}
    changed = PocketRecipe.model_validate(RECIPE.model_dump() | kept)
    assert recipe_digest(changed, tokenizer, PROMPTS) == digest
    for other in (
        RECIPE.model_copy(update={"seed": 1}),
        RECIPE.model_copy(update={"reasoning": False}),
    ):
        assert recipe_digest(other, tokenizer, PROMPTS) != digest
    prompts = {**PROMPTS, "detailed": "Summarise."}
    assert recipe_digest(RECIPE, tokenizer, prompts) != digest


def test_the_files_are_a_model_that_others_load(tmp_path):
    folder = tmp_path / "pocket"
    record = train_pocket("pocket", RECIPE, PROMPTS, tmp_path / "run.pt", folder)
    assert read_model(folder / TRAINING_FILE, PocketTraining) == record
    assert record.num_tokens >= RECIPE.num_steps * RECIPE.step_tokens
    assert {one.layout for one in record.summary_lengths} >= {"independent", "suffix_target"}
    means = {}
    for one in record.summary_lengths:
        means.setdefault(one.level, set()).add((one.num_summaries, one.mean_tokens))
    assert all(len(equal) == 1 for equal in means.values())  # every layout the same
    model = AutoModelForCausalLM.from_pretrained(folder / MODEL_FOLDER)
    assert sum(parameter.numel() for parameter in model.parameters()) == record.num_parameters
    assert model.dtype is torch.bfloat16
    renderer = Renderer(str(folder / MODEL_FOLDER))
    ids = renderer.render([{"role": "user", "content": "Question: Who?"}], True)
    assert len(ids) == len(set(ids)) and max(ids) < record.vocab_size

    with pytest.raises(ArtifactError, match="other model files"):
        _examined(folder, "another")
        write_card(folder)
    _examined(folder, digest_tree(folder / MODEL_FOLDER))
    card = write_card(folder).read_text()
    assert card == (folder / CARD_FILE).read_text()
    assert record.recipe_digest in card
    assert "| single | raw documents | 48 | 30 of 40 | 75% | 60% to 86% |" in card


def _examined(folder, digest):
    result = SkillResult(
        skill="answer",
        kind="single",
        context="raw documents",
        num_facts=48,
        num_right=30,
        num=40,
        low_frac=0.598,
        high_frac=0.858,
    )
    skills = PocketSkills(name="pocket", model_digest=digest, results=[result], examined_at="now")
    write_model(folder / SKILLS_FILE, skills)


def test_answers_are_right_as_a_whole_and_refusals_in_words():
    one = Probe("single", "Who?", "Bafelk Dulomp", ())
    assert is_right(one, "Bafelk Dulomp.")
    assert not is_right(one, "Bafelk")
    nothing = Probe("absent", "Who?", "no information available", ())
    assert is_right(nothing, "No information available")
    assert not is_right(nothing, "Bafelk")


def test_sentences_of_a_summary_are_those_that_were_written():
    assert sentences_of("A lies on B. C has 12 strings. ") == ["A lies on B.", "C has 12 strings."]
    assert sentences_of("") == []


def test_recipes_of_the_default_profile_fit_their_backbones():
    profile = load_profile([Path("config/config.yaml")])
    for name, recipe in profile.pocket.items():
        if name in profile.backbones:
            backbone = profile.backbones[name]
            assert backbone.context_window_tokens <= recipe.context_window_tokens
            assert backbone.reasoning == recipe.reasoning


def test_after_enough_steps_a_lower_mastery_lets_scenes_grow(tokenizer):
    curriculum = RECIPE.curriculum.model_copy(
        update={"late_after_steps": 4, "mastery": {"single": 0.9}, "late_mastery": {"single": 0.5}}
    )
    patient = PocketTrainer(
        RECIPE.model_copy(update={"curriculum": curriculum}), tokenizer, PROMPTS
    )
    patient.progress.max_words = MAX_WORDS
    patient.progress.accuracy = {"single": 0.7}
    start = patient.progress.max_facts
    patient.progress.step = 4
    patient._grow({})
    assert patient.progress.max_facts == start
    patient.progress.step = 5
    patient._grow({})
    assert patient.progress.max_facts > start


def test_an_examination_whose_answers_are_all_empty_fails_aloud():
    class Silent:
        window_tokens = 4096
        renderer = SimpleNamespace(count=lambda messages, add_generation_prompt: 1)

        async def complete(self, request):
            return SimpleNamespace(text="", prompt_tokens=1, completion_tokens=1)

    asked = list(questions(Random(0), 1))[:3]
    with pytest.raises(CompactionError, match=r"all 3 answers are empty.*reasoning parser"):
        asyncio.run(examine(Silent(), asked, [], lambda num_tokens: None))

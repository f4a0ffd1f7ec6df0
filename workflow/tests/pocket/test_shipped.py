"""The pocket backbones that the repository ships: made by its recipes, examined, described."""

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from blockwise.artifacts import digest_tree, read_model
from blockwise.config.backbones import POCKET_FOLDER
from blockwise.config.load import load_profile
from blockwise.pocket.card import write_card
from blockwise.pocket.files import (
    CARD_FILE,
    MODEL_FOLDER,
    SKILLS_FILE,
    TRAINING_FILE,
    recipe_digest,
    taught_prompts,
)
from blockwise.pocket.records import PocketSkills, PocketTraining
from blockwise.pocket.tokenizer import make_tokenizer

MAX_WEIGHTS_BYTES = 12_000_000
RECIPES = load_profile([Path("config/config.yaml")]).pocket
PROMPTS = taught_prompts(Path("config/prompts"))

pytestmark = pytest.mark.parametrize("name", sorted(RECIPES))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(PROMPTS)


def test_the_recipe_of_the_repository_made_the_files(name, tokenizer):
    training = read_model(POCKET_FOLDER / name / TRAINING_FILE, PocketTraining)
    assert training.recipe == RECIPES[name]
    assert training.recipe_digest == recipe_digest(RECIPES[name], tokenizer, PROMPTS)
    assert training.curve[-1].step == RECIPES[name].num_steps


def test_the_files_are_those_that_were_examined_and_described(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(POCKET_FOLDER / name, folder)
    skills = read_model(folder / SKILLS_FILE, PocketSkills)
    assert skills.model_digest == digest_tree(folder / MODEL_FOLDER)
    described = (folder / CARD_FILE).read_text()
    assert write_card(folder).read_text() == described


def test_they_are_small_and_speak_the_language(name, tokenizer):
    folder = POCKET_FOLDER / name / MODEL_FOLDER
    assert (folder / "model.safetensors").stat().st_size < MAX_WEIGHTS_BYTES
    shipped = AutoTokenizer.from_pretrained(folder)
    assert shipped.get_vocab() == tokenizer.get_vocab()
    assert shipped.chat_template == tokenizer.chat_template

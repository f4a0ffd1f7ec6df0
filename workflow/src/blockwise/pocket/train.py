"""Training a pocket backbone: lessons that lengthen as they are mastered.

Token accuracy, not the clock, decides when scenes grow: the skill of copying a fact appears all
at once, and appears only while contexts hold one or two. The lessons of a step follow from the
seed, the step and the length reached, so a run that was killed goes on from its checkpoint with
the lessons that it would have had.
"""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from blockwise.artifacts import write_bytes
from blockwise.config.datasets import Split
from blockwise.config.pocket import PocketRecipe
from blockwise.errors import ArtifactError
from blockwise.models.machine_dtype import cpu_dtype
from blockwise.models.random_backbone import BOS_TOKEN, END_TOKEN, draw_weights
from blockwise.mxfp4.torch_files import UNREADABLE, load_values
from blockwise.pocket.attention import SHARED_OPENINGS, reaches_of
from blockwise.pocket.lessons import Lesson, make_lessons, make_recitals
from blockwise.pocket.sequences import UNLABELLED, LessonEncoder, TokenLesson, in_a_row, in_batches

CURVE_EVERY_STEPS = 100
BATCH_TOKENS = 16384  # at a time, to bound memory
PRECISION = torch.bfloat16 if cpu_dtype() == "bfloat16" else torch.float32  # of the products
MEMORY = 0.95  # of the moving averages of accuracy
GROWN_PENALTY = 0.05  # longer scenes are harder: averages start lower, and must recover
SKILLS = ("recite", "answer", "compact")
BETAS, MOMENTUM = (0.9, 0.95), 0.95  # of AdamW, of Muon
FINAL_RATE_FRAC = 0.1  # of the learning rate
FIRST_WORDS, MAX_WORDS = 8, 24  # of a recital, at first and when lessons proper begin
WORDS_GROWTH, CAN_COPY = 1.25, 0.93  # they grow by the factor above the accuracy
NUM_RECITALS = 4  # at a time; beside the lessons of a scene, so that copying is not forgotten


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    num_tokens: int = 0
    max_words: int = FIRST_WORDS  # that a recital has; lessons proper begin at MAX_WORDS
    max_facts: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)  # moving, by kind of reply
    curve: list[dict[str, Any]] = field(default_factory=list)  # see `CurvePoint`
    recent_losses: list[float] = field(default_factory=list)  # since the last of its points
    num_resumes: int = 0
    train_s: float = 0.0


class PocketTrainer:
    """Model, optimizer, lessons and how far they are.

    Args:
        recipe: what is trained.
        tokenizer: see `make_tokenizer`.
        prompts: compaction prompts by name.
    """

    def __init__(self, recipe: PocketRecipe, tokenizer: Any, prompts: Mapping[str, str]) -> None:
        self.recipe, self._prompts = recipe, prompts
        self._encoder = LessonEncoder(tokenizer, reasoning=recipe.reasoning)
        self.model = make_model(recipe, tokenizer)
        self.optimizers = make_optimizers(self.model, recipe)
        can_copy = recipe.starts_from is not None
        self.progress = Progress(
            max_words=MAX_WORDS if can_copy else FIRST_WORDS,
            max_facts=recipe.curriculum.start_facts,
        )

    def lessons(self) -> list[TokenLesson]:
        """The lessons of the next step; what exceeds the window is left out."""
        recipe, progress = self.recipe, self.progress
        taken: list[TokenLesson] = []
        num_tokens = scene = 0
        while num_tokens < recipe.step_tokens:
            rng = Random(f"{recipe.seed}:{progress.step}:{scene}")
            scene += 1
            made = self._made(rng)
            for lesson in map(self._encoder.encode, made):
                if max(lesson.positions) < recipe.context_window_tokens:
                    taken.append(lesson)
                    num_tokens += len(lesson.ids)
        return taken

    def _made(self, rng: Random) -> list[Lesson]:
        """Lessons on new scenes; recitals alone until it can copy, and beside them for a while."""
        max_facts = self.progress.max_facts
        max_words = self.progress.max_words
        if max_words < MAX_WORDS:
            return [make_recitals(rng, Split.TRAIN, max_words, NUM_RECITALS)]
        curriculum = self.recipe.curriculum
        made = make_lessons(
            rng,
            max_facts,
            Split.TRAIN,
            self._prompts,
            is_plain=max_facts <= curriculum.plain_facts,
        )
        if max_facts <= curriculum.reciting_facts:
            made.append(make_recitals(rng, Split.TRAIN, max_words, NUM_RECITALS))
        return made

    def step(self) -> float:
        """Train on the next lessons; the loss, nats a token, skills weighted alike."""
        begin_s = time.perf_counter()
        recipe, progress = self.recipe, self.progress
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress.step, recipe)
        lessons = self.lessons()
        num_labels = {
            skill: sum(len(one.kinds) for one in lessons if one.skill == skill) for skill in SKILLS
        }
        taught = [skill for skill in SKILLS if num_labels[skill]]
        weights = {skill: 1 / (len(taught) * num_labels[skill]) for skill in taught}
        total, correct = 0.0, dict[str, list[int]]()
        for batch in in_batches(lessons, BATCH_TOKENS):
            losses, hits = label_losses(self.model, batch)
            kinds = [kind for lesson in batch for kind in lesson.kinds]
            per_label = torch.tensor(
                [weights[lesson.skill] for lesson in batch for _ in lesson.kinds]
            )
            loss = (losses * per_label).sum()
            total += float(loss.detach())
            loss.backward()
            for kind, hit in zip(kinds, hits.tolist(), strict=True):
                correct.setdefault(kind, []).append(hit)
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.gradient_clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        progress.step += 1
        progress.num_tokens += sum(len(lesson.ids) for lesson in lessons)
        progress.recent_losses.append(total)
        self._grow(correct)
        progress.train_s += time.perf_counter() - begin_s
        if progress.step % CURVE_EVERY_STEPS == 0 or progress.step == recipe.num_steps:
            self._note_point()
        return total

    def _note_point(self) -> None:
        progress = self.progress
        progress.curve.append(
            {
                "step": progress.step,
                "num_tokens": progress.num_tokens,
                "max_facts": progress.max_facts,
                "loss": fmean(progress.recent_losses),
                "accuracy": dict(progress.accuracy),
            }
        )
        progress.recent_losses.clear()

    def save(self, path: Path, key: str) -> None:
        """Write everything that the next step depends on; `key` is the recipe's digest."""
        state = {
            "key": key,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(path, content.getvalue())

    def resume(self, path: Path, key: str) -> None:
        """Continue from a checkpoint, if there is one.

        Raises:
            ArtifactError: it is damaged or of another recipe.
        """
        if not path.exists():
            return
        remedy = f"delete {path} to train from the beginning"
        try:
            state = load_values(path)
            if state["key"] != key:
                raise ArtifactError(f"the checkpoint {path} is of another recipe; {remedy}")
            self._take(state)
        except UNREADABLE as error:
            said = str(error).strip().partition("\n")[0]
            raise ArtifactError(
                f"the checkpoint {path} cannot be read ({type(error).__name__}: {said}); {remedy}"
            ) from error

    def _take(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        self.progress = Progress(**state["progress"])
        self.progress.num_resumes += 1

    def _grow(self, correct: Mapping[str, list[int]]) -> None:
        """Lengthen the scenes if the present ones are mastered."""
        curriculum, accuracy = self.recipe.curriculum, self.progress.accuracy
        for kind, hits in correct.items():
            share = sum(hits) / len(hits)
            accuracy[kind] = MEMORY * accuracy.get(kind, 0.0) + (1 - MEMORY) * share
        progress = self.progress
        if progress.max_words < MAX_WORDS:
            if accuracy["recite"] > CAN_COPY:
                progress.max_words = min(int(progress.max_words * WORDS_GROWTH), MAX_WORDS)
                accuracy["recite"] -= GROWN_PENALTY
            return
        facts = progress.max_facts
        is_mastered = all(
            accuracy.get(kind, 0.0) > needed
            for kind, needed in curriculum.mastery_after(progress.step).items()
        )
        if is_mastered and facts < curriculum.max_facts:
            grown = max(facts + 1, int(facts * curriculum.growth))
            progress.max_facts = min(grown, curriculum.max_facts)
            for kind in accuracy:
                accuracy[kind] -= GROWN_PENALTY


def make_optimizers(model: nn.Module, recipe: PocketRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms; one learning rate."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed_tokens" not in name
        (matrices if is_matrix else others).append(parameter)
    shared: Any = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    return [
        torch.optim.Muon(matrices, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw", **shared),
        torch.optim.AdamW(others, betas=BETAS, **shared),
    ]


def learning_rate(step: int, recipe: PocketRecipe) -> float:
    """Learning rate of a step, counted from 0: warmup, then held, then a line down.

    Where the rate is held nothing depends on the length of the run, so that a run can be
    lengthened before its decay begins.

    Source: the warmup-stable-decay schedule of MiniCPM, arXiv 2404.06395.
    """
    warmup_frac = min(1.0, (step + 1) / max(recipe.warmup_steps, 1))
    left_frac = min(1.0, (recipe.num_steps - step) / recipe.decay_steps)
    decayed_frac = FINAL_RATE_FRAC + (1 - FINAL_RATE_FRAC) * left_frac
    return recipe.learning_rate * warmup_frac * decayed_frac


def label_losses(model: Any, lessons: list[TokenLesson]) -> tuple[Tensor, Tensor]:
    """Loss of each labelled token, nats, and whether it is the model's first choice; in order."""
    ids, positions, labels = in_a_row(lessons)
    reaches = reaches_of([lesson.segments for lesson in lessons], PRECISION)
    targets = labels[:, 1:]
    chosen = targets != UNLABELLED
    with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION is torch.bfloat16):
        hidden = model.model(
            input_ids=ids, position_ids=positions, use_cache=False, reaches=reaches
        ).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[chosen]).float()
    losses = functional.cross_entropy(logits, targets[chosen], reduction="none")
    return losses, (logits.argmax(-1) == targets[chosen]).to(torch.int32)


def make_model(recipe: PocketRecipe, tokenizer: Any) -> Any:
    """A Llama of the recipe's sizes with seeded random weights.

    They are drawn wider than Llama's own 0.02, which is meant for wide models: with 1/sqrt(width)
    copying was learnt in a fraction of the steps (workflow/docs/pocket.md).
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_key_value_heads,
        head_dim=recipe.head_size,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        max_position_embeddings=recipe.context_window_tokens,
        bos_token_id=tokenizer.convert_tokens_to_ids(BOS_TOKEN),
        eos_token_id=tokenizer.convert_tokens_to_ids(END_TOKEN),
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.set_attn_implementation(SHARED_OPENINGS)
    draw_weights(model, recipe.seed, std=recipe.hidden_size**-0.5)
    return model


def train(
    trainer: PocketTrainer,
    checkpoint: Path,
    key: str,
    report: Callable[[int, str], None] = lambda num_tokens, state: None,
) -> None:
    """Train to the end of the schedule, saving now and then.

    Args:
        trainer: new or resumed.
        checkpoint: file that is kept up to date.
        key: the recipe's digest.
        report: told after each step how many tokens it read, and how things stand.
    """
    recipe = trainer.recipe
    while trainer.progress.step < recipe.num_steps:
        before = trainer.progress.num_tokens
        loss = trainer.step()
        progress = trainer.progress
        accuracy = (f"{kind} {value:.2f}" for kind, value in sorted(progress.accuracy.items()))
        report(
            progress.num_tokens - before,
            f"{progress.max_words} words, {progress.max_facts} facts, loss {loss:.3f}, "
            f"{' '.join(accuracy)}",
        )
        if progress.step % recipe.checkpoint_every_steps == 0 or progress.step == recipe.num_steps:
            trainer.save(checkpoint, key)

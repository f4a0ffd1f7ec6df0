"""A published model in the MXFP4 study: which one, on what text, and what is measured on it.

The models that the study trains learn in the arithmetic of their arm. A published model was
trained in high precision and has the activations and gradients of a real one, so it shows what
an arm does to those, before anything adapts to it. Nothing of it is ever trained here: errors are
measured on its tensors, and descent is one step away from its weights.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from blockwise.config.backbones import GgufModel, PathModel
from blockwise.config.base import ConfigModel
from blockwise.config.corpora import Corpus
from blockwise.config.mxfp4_studies import Study
from blockwise.config.recipes import GROUP_SIZE

Seed = Annotated[int, Field(ge=0)]
MIN_MICRO_BATCHES = 2  # an average

PublishedModel = Annotated[GgufModel | PathModel, Field(discriminator="source")]


class Pretrained(ConfigModel):
    """A published causal language model and the text that it is measured on."""

    model: PublishedModel
    num_parameters: float = Field(gt=0, description="For the bill and for captions.")
    corpus: Corpus = Field(description="Text; the model's own tokenizer makes it tokens.")
    sequence_tokens: int = Field(512, gt=0, multiple_of=GROUP_SIZE)
    layers: list[str] = Field(
        ["model.layers.*"],
        min_length=1,
        description="Patterns of the linear layers that quantize; embedding and head do not.",
    )
    caption: str = Field(description="Which model, in what form, on what text; in every figure.")


class PretrainedExperiment(ConfigModel):
    """What every measurement on a published model names."""

    arms: list[str] = Field(min_length=1)

    def all_arms(self) -> list[str]:
        """Every arm that is measured, each once."""
        return list(dict.fromkeys(self.arms))


class LayerErrorsExperiment(PretrainedExperiment):
    """Errors of each GEMM of each linear layer: all arms see the same x, w and dy."""

    study: Literal[Study.LAYER_ERRORS]
    ratios: list[tuple[str, str]] = Field(
        [], description="Pairs of arms; the error of the first is divided by the second's."
    )
    layers: list[str] = Field(
        ["*"], min_length=1, description="Patterns of those among `pretrained.layers` to measure."
    )
    seed: Seed = 0
    num_batches: int = Field(gt=1, description="Batches over which an error counts as systematic.")
    batch_sequences: int = Field(1, gt=0)
    num_parts: int = Field(
        1,
        gt=0,
        description="Jobs that share the layers; a job keeps a sum of dW an arm and layer.",
    )

    @model_validator(mode="after")
    def _ratios_are_of_measured_arms(self) -> "LayerErrorsExperiment":
        for pair in self.ratios:
            if missing := [arm for arm in pair if arm not in self.arms]:
                raise ValueError(
                    f"ratios names {' and '.join(missing)}, which arms does not; add it there"
                )
        return self


class DescentExperiment(PretrainedExperiment):
    """One step from the published weights along each arm's gradient, and what it gains."""

    study: Literal[Study.DESCENT]
    baselines: list[str] = Field(min_length=1, description="Arms whose gain is a whole share.")
    references: list[str] = Field(
        [], description="Further arms that the others' gains are divided by."
    )
    starts: list[Seed] = Field(min_length=1, description="Starting batches; each is a record.")
    num_micro_batches: int = Field(
        ge=MIN_MICRO_BATCHES, description="Over which an arm's gradient is averaged."
    )
    micro_batch_sequences: int = Field(1, gt=0)
    evaluation_sequences: int = Field(gt=0, description="Held-out sequences of each start.")
    step_norm_frac: float = Field(
        gt=0, description="Length of the step, as a share of the norm of the weights that move."
    )
    signed_step_frac: float = Field(
        gt=0, description="Length of the step along the gradient's signs, likewise."
    )

    def all_arms(self) -> list[str]:
        """Baselines, references and arms, each once."""
        return list(dict.fromkeys([*self.baselines, *self.references, *self.arms]))

    @field_validator("starts")
    @classmethod
    def _starts_differ(cls, starts: list[int]) -> list[int]:
        if len(set(starts)) < len(starts):
            raise ValueError(f"starts {starts} names one twice; each is measured once")
        return starts

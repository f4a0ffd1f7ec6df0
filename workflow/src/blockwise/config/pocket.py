"""Pocket backbones: the recipes by which tiny models are trained here."""

from pydantic import Field

from blockwise.config.base import ConfigModel, PositiveTokens


class Curriculum(ConfigModel):
    """How long scenes are: they grow as the model masters the present ones."""

    start_facts: int = Field(4, gt=0, description="Scenes state at most so many facts at first.")
    plain_facts: int = Field(
        6, ge=0, description="Up to so many, scenes are encyclopedic and summaries keep every fact."
    )
    max_facts: int = Field(96, gt=0, description="They never grow beyond.")
    reciting_facts: int = Field(
        12, ge=0, description="Up to so many, copying is practised by itself beside the lessons."
    )
    growth: float = Field(1.15, gt=1, description="Factor by which they grow, at least by one.")
    mastery: dict[str, float] = Field(
        default_factory=lambda: {"compact": 0.9, "single": 0.85},
        description="Token accuracy, by kind of reply, above which they do.",
    )
    late_after_steps: int | None = Field(
        None, gt=0, description="After so many steps `late_mastery` is enough; default: never."
    )
    late_mastery: dict[str, float] = Field(
        default_factory=lambda: {"compact": 0.74, "single": 0.68},
        description="Lower: whatever the last scenes hold must be met before the rate decays.",
    )

    def mastery_after(self, num_steps: int) -> dict[str, float]:
        """What must be exceeded after so many steps for scenes to grow."""
        is_late = self.late_after_steps is not None and num_steps > self.late_after_steps
        return self.late_mastery if is_late else self.mastery


class Examination(ConfigModel):
    """How thoroughly a trained backbone is examined; no part of what is trained."""

    num_question_scenes: int = Field(12, gt=0, description="Of each kind and length.")
    num_block_scenes: int = Field(20, gt=0, description="Each compacted under every layout.")
    num_sequential_scenes: int = Field(8, gt=0, description="Whole histories of each length.")


class EarlierBackbone(ConfigModel):
    """The files of a pocket backbone that an earlier commit of this repository shipped."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of its model.safetensors.")


class PocketRecipe(ConfigModel):
    """Everything that makes a pocket backbone: sizes, lessons, schedule."""

    seed: int = Field(0, ge=0)
    reasoning: bool = Field(description="Restates the facts it needs in thinking tags first.")
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0, description="A divisor of the attention heads.")
    head_size: int = Field(gt=0, description="Width of a head.")
    rope_theta: float = Field(
        1.0e6,
        gt=0,
        description="Base of the rotary wavelengths: large, so that half of a head does not turn "
        "over a whole history and finds a name wherever it stands.",
    )
    context_window_tokens: PositiveTokens = 4096
    starts_from: EarlierBackbone | None = Field(
        None,
        description="Weights to start from, for new words; their sizes must be these. Default: "
        "from nothing.",
    )
    curriculum: Curriculum = Curriculum()
    num_steps: int = Field(gt=0, description="Optimizer steps: the schedule's length.")
    step_tokens: PositiveTokens = Field(description="A step takes scenes until it has so many.")
    learning_rate: float = Field(gt=0, description="Held after the warmup, until the decay.")
    warmup_steps: int = Field(100, ge=0)
    decay_steps: int = Field(
        gt=0, description="Last steps, in which the rate falls in a line to a tenth."
    )
    weight_decay: float = Field(0.05, ge=0)
    gradient_clip_norm: float = Field(1.0, gt=0)
    checkpoint_every_steps: int = Field(200, gt=0)
    examination: Examination = Examination()

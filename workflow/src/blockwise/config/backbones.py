"""Backbones: which model, how it is served, how it is asked."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from blockwise.config.base import UNPINNED, ConfigModel, Name, PositiveTokens
from blockwise.config.keys import EndpointUrls, KeyVariable, secret_variables
from blockwise.config.published_files import HubPlace, PackagePlace, Sha256
from blockwise.config.split import BatchSplit

FLAGS_OF_OTHER_KEYS = frozenset(
    {
        "model",
        "revision",
        "served-model-name",
        "host",
        "max-model-len",
        "api-key",
        "hf-token",  # as every key, inherited from the environment and recorded nowhere
        "config",  # a file of further flags, which no key of a cell would know
        "uds",  # instead of the host
    }
)
"""Server flags that follow from the rest of the configuration; a second value contradicts it."""

FLAG = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
"""A flag and nothing else: `host=0.0.0.0` would be another flag with its value."""

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes that vLLM's attention on the CPU takes.

Source: vLLM 0.32, v1/attention/backends/cpu_attn.py, `get_supported_head_sizes`."""

POCKET_FOLDER = Path("workflow/pocket")
"""Where the repository ships its pocket backbones."""

MADE_FOR_VLLM = frozenset({"random", "pocket", "gguf"})
"""Sources of models whose files are made here, for a server of ours."""

MAX_PORT = 65535  # TCP ports are 16-bit numbers; 0 would mean any

DATA_PARALLEL = "data-parallel-size"


class Architecture(StrEnum):
    """How a backbone's feed-forward layers are built."""

    DENSE = "dense"
    MOE = "moe"


class Family(StrEnum):
    """Model families whose shape a random backbone can have."""

    LLAMA = "llama"  # as Llama 2: plain rotary embeddings
    LLAMA3 = "llama3"  # as Llama 3.1 and 3.3: rotary embeddings scaled to long windows
    GPT_OSS = "gpt_oss"  # mixture of experts, every other layer attends to a sliding window


class RequestForm(StrEnum):
    """The one form in which a backbone receives its prompts, recorded in its engine card."""

    CHAT = "chat"  # messages; the server applies its chat template (reasoning parsers need it)
    COMPLETION = "completion"  # token ids of the chat template applied on our side


class Weights(StrEnum):
    """What a backbone's weights know, and so what its answers are worth."""

    RANDOM = "random"  # nothing: answers are noise, only forced equal volume may be compared
    POCKET = "pocket"  # the synthetic language, taught here, summaries and their length with it
    PUBLISHED = "published"  # what its publisher trained


class RandomModel(ConfigModel):
    """A small model with random weights and its own tokenizer, made by a rule.

    Its answers are noise: it serves timing only. Nothing is downloaded.
    """

    source: Literal["random"]
    family: Family = Family.LLAMA
    num_experts: int = Field(8, gt=0, description="gpt_oss: experts of a layer.")
    num_experts_per_token: int = Field(4, gt=0, description="gpt_oss: of which so many are used.")
    sliding_window_tokens: int = Field(128, gt=0, description="gpt_oss: of every other layer.")
    seed: int = 0
    hidden_size: int = Field(256, gt=0)
    intermediate_size: int = Field(704, gt=0)
    num_layers: int = Field(6, gt=0)
    num_attention_heads: int = Field(4, gt=0)
    num_key_value_heads: int = Field(4, gt=0)
    vocab_size: int = Field(4096, ge=512, description="Byte-level BPE tokens, specials included.")

    @model_validator(mode="after")
    def _heads_fit(self) -> "RandomModel":
        num_heads, num_key_value_heads = self.num_attention_heads, self.num_key_value_heads
        problems = []
        if num_heads % num_key_value_heads:
            problems.append(
                f"num_attention_heads {num_heads} is no multiple of num_key_value_heads "
                f"{num_key_value_heads}; change one of them"
            )
        if self.hidden_size % num_heads:
            problems.append(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                f"{num_heads}; change one of them"
            )
        elif self.hidden_size // num_heads not in HEAD_SIZES:
            problems.append(
                f"hidden_size {self.hidden_size} over num_attention_heads {num_heads} is a head "
                f"size of {self.hidden_size // num_heads}, and vLLM takes {HEAD_SIZES} on the "
                "CPU; change one of them"
            )
        if self.num_experts_per_token > self.num_experts:
            problems.append(
                f"num_experts_per_token {self.num_experts_per_token} exceeds num_experts "
                f"{self.num_experts}; lower it"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class PocketModel(ConfigModel):
    """A tiny Llama trained by this repository on its synthetic language, and shipped with it."""

    source: Literal["pocket"]
    name: Name = Field(description="Its recipe's name in `pocket`, and its folder's.")

    @property
    def folder(self) -> Path:
        """Where its Hugging Face files are."""
        return POCKET_FOLDER / self.name / "model"


class PathModel(ConfigModel):
    """Hugging Face model files in a local folder."""

    source: Literal["path"]
    path: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return Path(self.path)


class HubModel(ConfigModel):
    """A model of the Hugging Face hub at a pinned commit."""

    source: Literal["hub"]
    id: str = Field(description="Hub id, e.g. meta-llama/Llama-3.1-8B-Instruct.")
    revision: str = Field(UNPINNED, description="Commit hash; `unpinned` may dry-run, not run.")


class GgufModel(ConfigModel):
    """A published GGUF file: its digest says which model it is, wherever its bytes come from.

    It is looked for in the models folder, then in the package, then on the hub.
    """

    source: Literal["gguf"]
    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.gguf$",
        description="Name of the file, without folders.",
    )
    sha256: Sha256
    hub: HubPlace | None = Field(None, description="A repository of the hub that holds it.")
    package: PackagePlace | None = Field(None, description="A package whose wheel holds it.")


ModelSource = Annotated[
    RandomModel | PocketModel | PathModel | HubModel | GgufModel, Field(discriminator="source")
]

ArgumentValue = bool | int | float | str


class VllmEngine(ConfigModel):
    """A vLLM server, or several alike, that each job starts, watches and always stops."""

    kind: Literal["vllm"]
    arguments: dict[Annotated[str, Field(pattern=FLAG)], ArgumentValue] = Field(
        default_factory=dict,
        description="Flags of vLLM's OpenAI server without the dashes; true is a bare flag, "
        "false a --no- flag. `port` pins the port; otherwise a free one is taken.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables of the server (never keys: those are inherited).",
    )
    startup_timeout_s: float = Field(900.0, gt=0)
    num_replicas: int = Field(
        1,
        ge=1,
        description="Servers of this kind that a job starts; each takes the backbone's `gpus`, "
        "and sessions are spread over them.",
    )

    @model_validator(mode="after")
    def _flags_are_free(self) -> "VllmEngine":
        problems = []
        refused = sorted(filter(_is_of_another_key, self.flags()))
        if refused:
            problems.append(
                f"arguments must not hold {', '.join(refused)}: these follow from `model`, "
                "`context_window_tokens` and the backbone's name, or tie the server to its job; "
                "remove them"
            )
        secrets = secret_variables(self.environment)
        if secrets:
            problems.append(
                f"environment must not hold {', '.join(secrets)}: a configuration is recorded, and "
                "its values with it; export them where the workflow is started, servers inherit "
                "them"
            )
        port = self.arguments.get("port")
        if port is not None and not (type(port) is int and 1 <= port <= MAX_PORT):
            problems.append(
                f"arguments.port {port!r} is no whole number from 1 to {MAX_PORT}; mend it, or "
                "remove it to take a free port"
            )
        elif port is not None and self.num_replicas > 1:
            problems.append(
                f"arguments.port {port} pins one port and num_replicas is {self.num_replicas}; "
                "remove the port, or set num_replicas to 1"
            )
        ranks = self.flags().get(DATA_PARALLEL, 1)
        if ranks != 1:
            problems.append(
                f"arguments.{DATA_PARALLEL} {ranks}: vLLM spreads the requests of one session over "
                f"its ranks, where no prefix cache holds; set num_replicas to {ranks} instead"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def flags(self) -> dict[str, ArgumentValue]:
        """The arguments under the names that vLLM documents: with dashes, not underscores."""
        return {key.replace("_", "-"): value for key, value in self.arguments.items()}


def _is_of_another_key(flag: str) -> bool:
    """Whether a flag is refused; the server also takes the beginning of one for the whole."""
    name = flag.lower().partition(".")[0]
    return any(whole.startswith(name) for whole in FLAGS_OF_OTHER_KEYS)


class ExternalEngine(ConfigModel):
    """An OpenAI-compatible endpoint, or several alike, that somebody else runs."""

    kind: Literal["external"]
    url: EndpointUrls = Field(
        description="Base URL, up to and including /v1; a list of them where several endpoints "
        "serve the same, and sessions are spread over them."
    )
    served_model: str = Field(description="Model name to put into requests.")
    version: str = Field(description="What runs there, in words; part of the cell key.")
    api_key_env: KeyVariable | None = Field(
        None, description="Environment variable that holds the key."
    )
    cache_salt: bool = Field(False, description="The server honours vLLM's cache_salt.")

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints, without a closing slash."""
        given = [self.url] if isinstance(self.url, str) else self.url
        return tuple(url.rstrip("/") for url in given)

    @property
    def num_replicas(self) -> int:
        """How many endpoints serve the same."""
        return len(self.urls)

    @model_validator(mode="after")
    def _urls_differ(self) -> "ExternalEngine":
        twice = sorted({url for url in self.urls if self.urls.count(url) > 1})
        if twice:
            raise ValueError(
                f"url names {', '.join(twice)} more than once; one endpoint is one replica: name "
                "each once"
            )
        return self


Engine = Annotated[VllmEngine | ExternalEngine, Field(discriminator="kind")]


class RequestSettings(ConfigModel):
    """What every request to this backbone says, and so what its answers depend on."""

    form: RequestForm = RequestForm.CHAT
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        description="vLLM's, over prompt and answer; above 1 discourages tokens that were there. "
        "Give what the publisher of the model recommends.",
    )
    chat_template_arguments: dict[str, ArgumentValue] = Field(
        default_factory=dict,
        description="Extra variables of the chat template, e.g. a pinned date_string.",
    )


class RequestDefaults(RequestSettings):
    """What every request to this backbone carries."""

    timeout_s: float = Field(600.0, gt=0)


class Backbone(ConfigModel):
    """One model under study. Adding a backbone is adding one entry."""

    model: ModelSource
    architecture: Architecture
    reasoning: bool
    num_parameters: float = Field(gt=0, description="Total parameters, for labels and order.")
    context_window_tokens: PositiveTokens
    engine: Engine
    gpus: int = Field(0, ge=0, description="GPUs that one server takes; 0 serves on the CPU.")
    request: RequestDefaults = RequestDefaults()
    datasets: list[Name] | None = Field(
        None, description="The datasets it plays, of those that an experiment names; default: all."
    )
    split: BatchSplit | None = Field(
        None,
        description="Play a batch in several jobs, to fit a wall-clock limit; default: in one "
        "for each server start.",
    )
    caption: str = Field("", description="A warning that every figure of this backbone shows.")

    @property
    def num_gpus(self) -> int:
        """GPUs that all its servers take."""
        return self.gpus * self.engine.num_replicas

    @property
    def weights(self) -> Weights:
        """What the weights know."""
        known = {"random": Weights.RANDOM, "pocket": Weights.POCKET}
        return known.get(self.model.source, Weights.PUBLISHED)

    @model_validator(mode="after")
    def _engine_and_model_agree(self) -> "Backbone":
        problems = []
        if self.engine.kind == "external" and self.model.source in MADE_FOR_VLLM:
            problems.append(
                "an external engine serves a model of its own: give `model` the hub id or path "
                "whose tokenizer it uses"
            )
        samples_on_cpu = not self.gpus and self.request.temperature > 0
        if samples_on_cpu and self._flag("enable-chunked-prefill"):
            problems.append(
                f"request.temperature {self.request.temperature} with chunked prefill kills "
                "vLLM on the CPU; remove enable-chunked-prefill or set temperature to 0"
            )
        if self.reasoning and self.engine.kind == "vllm" and not self._flag("reasoning-parser"):
            problems.append(
                "reasoning: true without a reasoning-parser leaves the thinking in answers and "
                "summaries; name the model's parser in engine.arguments.reasoning-parser (vLLM "
                "lists them), or set reasoning to false"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _flag(self, name: str) -> ArgumentValue | None:
        return self.engine.flags().get(name) if self.engine.kind == "vllm" else None

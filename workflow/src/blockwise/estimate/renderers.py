"""The renderer of a backbone where its tokenizer is on this machine, or an assumed one.

Nothing is downloaded. A random backbone's tokenizer is made (half a second). A model of another
kind counts where its folder holds a tokenizer, where an earlier run of the profile prepared it, or
where the hub's own cache has it.
"""

import tempfile
from pathlib import Path

from blockwise.artifacts import read_model
from blockwise.config.backbones import Backbone, HubModel, PathModel, PocketModel, RandomModel
from blockwise.config.base import UNPINNED
from blockwise.errors import ArtifactError, ConfigError
from blockwise.models.assumed_renderer import AssumedRenderer
from blockwise.models.hub_model import TOKENIZER_PATTERNS
from blockwise.models.prepare import TOKENIZER_FILES
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer


class Renderers:
    """Renderers by backbone, each tokenizer loaded once.

    Args:
        prepared_folder: where a run of this profile leaves the records of prepared backbones.
    """

    def __init__(self, prepared_folder: Path) -> None:
        self._folder = prepared_folder
        self._known: dict[object, Renderer] = {}

    def of(self, name: str, backbone: Backbone) -> Renderer:
        """The backbone's own renderer, or the assumed one."""
        model = backbone.model
        arguments = sorted((backbone.request.chat_template_arguments or {}).items())
        source = model.vocab_size if isinstance(model, RandomModel) else self._source(name, model)
        key = (source, str(arguments))
        if key not in self._known:
            self._known[key] = _loaded(source, dict(arguments))
        return self._known[key]

    def _source(self, name: str, model: object) -> Path | None:
        folder = tokenizer_folder(model)
        if folder is not None or isinstance(model, PathModel | PocketModel):
            return folder
        try:
            prepared = read_model(self._folder / f"{name}.json", PreparedModel)
        except ArtifactError:
            return None
        return Path(prepared.tokenizer_path) if Path(prepared.tokenizer_path).is_dir() else None


def _loaded(source: int | Path | None, arguments: dict[str, object]) -> Renderer:
    if source is None:
        return AssumedRenderer()
    if isinstance(source, int):
        # Imported here: it needs torch, which takes seconds to load.
        from blockwise.models.random_backbone import train_tokenizer  # noqa: PLC0415

        with tempfile.TemporaryDirectory() as folder:
            train_tokenizer(source).save_pretrained(folder)
            return Renderer(folder, arguments)
    try:
        return Renderer(str(source), arguments)
    except ConfigError:  # half a download; the run itself will say what is missing
        return AssumedRenderer()


def tokenizer_folder(model: object) -> Path | None:
    """Where a model's tokenizer files lie on this machine, if its source says."""
    folder = None
    if isinstance(model, PathModel | PocketModel):
        folder = model.folder
    if isinstance(model, HubModel):
        folder = _cached_snapshot(model)
    if folder is None or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    return folder


def _cached_snapshot(source: HubModel) -> Path | None:
    # Imported here: the other sources need no hub client.
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = huggingface_hub.snapshot_download(
            source.id,
            revision=None if source.revision == UNPINNED else source.revision,
            allow_patterns=TOKENIZER_PATTERNS,
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return Path(folder)


def is_assumed(renderer: Renderer) -> bool:
    """Whether a renderer is only assumed."""
    return isinstance(renderer, AssumedRenderer)

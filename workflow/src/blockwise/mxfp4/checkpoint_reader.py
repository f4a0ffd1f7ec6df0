"""Reading what torch.distributed.checkpoint wrote, without letting a file run code.

torch unpickles a checkpoint's metadata, and every value that is no tensor, as they stand: a
checkpoint that somebody else made could run anything. Here metadata may name the few classes
that describe tensors and their places and nothing else, and values are loaded as weights are.
"""

import io
import pickle
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from blockwise.mxfp4.torch_files import load_values

DESCRIBING = frozenset(
    {
        ("torch.distributed.checkpoint.metadata", "Metadata"),
        ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
        ("torch.distributed.checkpoint.metadata", "StorageMeta"),
        ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
        ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
        ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
        ("torch.distributed.checkpoint.metadata", "TensorProperties"),
        ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        ("pathlib", "PosixPath"),
    }
)
"""What metadata is made of, beside the plain types and torch's dtypes."""


class _MetadataUnpickler(pickle.Unpickler):
    """Knows the classes of metadata and no other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in DESCRIBING or (module == "torch" and _is_dtype(name)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"metadata names {module}.{name}, which describes no tensor")


def _is_dtype(name: str) -> bool:
    return isinstance(getattr(torch, name, None), torch.dtype)


class CheckpointReader(FileSystemReader):
    """torch's reader of a folder, but for the way in which it reads metadata."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata of a checkpoint.

        Raises:
            pickle.UnpicklingError: it holds something else.
        """
        path = self._get_metadata_path(kwargs.get("rank"))
        with self.fs.create_stream(path, "rb") as stream:
            metadata = _MetadataUnpickler(stream).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"metadata is a {type(metadata).__name__}")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class CheckpointPlanner(DefaultLoadPlanner):
    """torch's plan of what to load, but for the way in which it loads values."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Take a value that is no tensor; only what survives a careful reading is handed on."""
        careful = io.BytesIO()
        torch.save(load_values(value), careful)
        careful.seek(0)
        super().load_bytes(read_item, careful)

"""From a list of YAML files and command-line overrides to one validated profile.

Overlays replace the named collections whole (a paper profile must not inherit the laptop's
backbones) and merge everywhere else. Every problem of a configuration is found before the
first job and reported in one message that names key, value and remedy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from blockwise.config.backbones import Backbone
from blockwise.config.base import UNPINNED
from blockwise.config.datasets import Dataset
from blockwise.config.experiments import Experiment
from blockwise.config.profile import Profile, cross_problems
from blockwise.errors import ConfigError

NAMED_COLLECTIONS = frozenset({"backbones", "datasets", "arms"})
KIND_KEYS = ("kind", "mode")
DEFAULT_FILE = Path("config/config.yaml")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice instead of keeping the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(
                    f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: "
                    f"the name {key!r} is given twice; rename or remove one"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_profile(files: Sequence[Path], overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read, merge and validate a configuration.

    Args:
        files: YAML files, the base first, overlays after it.
        overrides: values of `--config`; strings in them are read as YAML scalars, so that
            they give the same cells as the same values in a file.

    Raises:
        ConfigError: anything is wrong; the message lists every problem.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = merge(merged, read_yaml(file))
    merged = merge(merged, _retype(dict(overrides or {})))
    try:
        return Profile.model_validate(merged)
    except ValidationError as error:
        problems = _problems(error, merged)
    raise _refusal(problems)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML, or no mapping.
    """
    try:
        text = file.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from None
    try:
        loader = _UniqueKeyLoader(text)
        loader.name = str(file)
        content = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping of keys, not {type(content).__name__}")
    return content


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another.

    Named collections are replaced whole, and so is a mapping that changes its kind (a forced
    volume over a natural one), because the keys of the other kind mean nothing in it.
    """
    merged = dict(base)
    for key, above in overlay.items():
        below = merged.get(key)
        if (
            key not in NAMED_COLLECTIONS
            and isinstance(below, Mapping)
            and isinstance(above, Mapping)
            and not any(kind in above and above[kind] != below.get(kind) for kind in KIND_KEYS)
        ):
            merged[key] = merge(below, above)
        else:
            merged[key] = above
    return merged


def _retype(value: Any) -> Any:
    """Give the strings of `--config` the types that YAML would have given them."""
    if isinstance(value, Mapping):
        return {key: _retype(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_retype(item) for item in value]
    if isinstance(value, str):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return value


def _problems(error: ValidationError, merged: Mapping[str, Any]) -> list[str]:
    problems = [_describe(problem) for problem in error.errors()]
    problems += [line for line in _cross_problems_of_sound_parts(merged) if line not in problems]
    return problems


def _describe(problem: Any) -> str:
    """One pydantic problem as `key: what is wrong (value): remedy`."""
    place = ".".join(str(part) for part in problem["loc"])
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "value_error":
        message = str(context["error"])
        return f"{place}: {message}" if place else message
    if kind == "extra_forbidden":
        return f"{place}: unknown key; config/README.md lists every key"
    if kind == "missing":
        return f"{place}: required and missing; config/README.md says what it means"
    if isinstance(value, Mapping | list) and len(value) == 0:
        return f"{place}: is empty; name at least one entry"
    shown = f"{value!r}" if not isinstance(value, Mapping | list) else "a collection"
    return f"{place}: {shown} is refused: {problem['msg']}"


def _cross_problems_of_sound_parts(merged: Mapping[str, Any]) -> list[str]:
    """Checks between the entries that are sound in themselves, beside those that are not."""
    return cross_problems(
        _sound(merged.get("backbones"), Backbone),
        _sound(merged.get("datasets"), Dataset),
        _sound(merged.get("experiments"), Experiment),
        listed={
            key: set(value) if isinstance(value := merged.get(key), Mapping) else set()
            for key in ("backbones", "datasets")
        },
    )


def _sound(entries: Any, model: type[BaseModel]) -> dict[str, Any]:
    sound = {}
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        try:
            sound[name] = model.model_validate(entry)
        except ValidationError:
            continue
    return sound


def missing_files(profile: Profile, prompts_folder: Path) -> list[str]:
    """Paths that the profile names and this machine does not have."""
    problems = []
    for name, dataset in profile.datasets.items():
        if dataset.source.kind == "path" and not Path(dataset.source.path).is_file():
            problems.append(f"datasets.{name}.source.path: {dataset.source.path} is no file")
    for name, backbone in profile.backbones.items():
        if backbone.model.source == "path" and not Path(backbone.model.path).is_dir():
            problems.append(f"backbones.{name}.model.path: {backbone.model.path} is no folder")
    for name, experiment in profile.experiments.items():
        if not prompt_path(prompts_folder, experiment.prompt).is_file():
            known = ", ".join(sorted(path.stem for path in prompts_folder.glob("*.md")))
            problems.append(
                f"experiments.{name}.prompt: {experiment.prompt!r} is no file of "
                f"{prompts_folder} (it has: {known})"
            )
    return problems


def prompt_path(prompts_folder: Path, name: str) -> Path:
    """File of a compaction prompt."""
    return prompts_folder / f"{name}.md"


def unpinned(profile: Profile) -> list[tuple[str, ...]]:
    """Keys, as paths, whose revision or digest nobody has verified yet."""
    keys: list[tuple[str, ...]] = []
    for name, backbone in profile.backbones.items():
        if backbone.model.source == "hub" and backbone.model.revision == UNPINNED:
            keys.append(("backbones", name, "model", "revision"))
    for name, dataset in profile.datasets.items():
        source = dataset.source
        if source.kind == "hub" and source.revision == UNPINNED:
            keys.append(("datasets", name, "source", "revision"))
        if source.kind == "url" and source.sha256 == UNPINNED:
            keys.append(("datasets", name, "source", "sha256"))
    return keys


def check_files(profile: Profile, prompts_folder: Path) -> None:
    """Refuse a profile that names files which this machine does not have.

    Raises:
        ConfigError: with every missing file in one message.
    """
    _refuse(missing_files(profile, prompts_folder))


def check_pinned(profile: Profile) -> None:
    """Refuse to run unpinned sources where the profile asks for pinned ones.

    Raises:
        ConfigError: with every unpinned key in one message.
    """
    if profile.require_pinned:
        _refuse(
            [
                f"{'.'.join(key)}: is {UNPINNED!r}, and this profile runs pinned sources only; "
                "run `make pin`"
                for key in unpinned(profile)
            ]
        )


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise _refusal(problems)


def _refusal(problems: Sequence[str]) -> ConfigError:
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return ConfigError(f"the configuration is refused ({len(problems)} problem(s)):\n{listed}")

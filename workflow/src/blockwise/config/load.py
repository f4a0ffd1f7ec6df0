"""From a list of YAML files and command-line overrides to one validated profile.

Overlays replace the named collections whole (a paper profile must not inherit the laptop's
backbones) and merge everywhere else. Every problem of a configuration is found before the
first job and reported in one message that names key, value and remedy.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from blockwise.config.backbones import Backbone
from blockwise.config.base import UNPINNED
from blockwise.config.datasets import Dataset
from blockwise.config.experiments import Experiment
from blockwise.config.profile import SEPARATOR, Profile, cross_problems
from blockwise.config.prompts import load_prompt, prompt_path
from blockwise.errors import ConfigError

NAMED_COLLECTIONS = frozenset({"backbones", "datasets", "arms"})
KIND_KEYS = ("kind", "mode", "study")
DEFAULT_FILE = Path("config/config.yaml")
MERGE_TAG = "tag:yaml.org,2002:merge"  # of the key `<<`, which may stand in a mapping repeatedly
MAX_INT_BITS = 1024  # a float holds no more; Python writes no number of 15,000 as text
NUM_SHOWN_CHARS = 200  # enough to recognise a value, short enough for a message


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice instead of keeping the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check keys as they are written: once `<<` is resolved, overriding looks like twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == MERGE_TAG:
                continue
            key = (key_node.tag, key_node.value)
            if key in seen:
                raise ConfigError(
                    f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: "
                    f"the name {key_node.value!r} is given twice; rename or remove one"
                )
            seen.add(key)
        return node

    def construct_int(self, node: Any) -> int:
        """Refuse a number that no key takes, before anything tries to write it down."""
        number: int = self.construct_yaml_int(node)
        if number.bit_length() > MAX_INT_BITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a whole number of more than {MAX_INT_BITS} bits", node.start_mark
            )
        return number


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _UniqueKeyLoader.construct_int)


def load_profile(
    files: Sequence[Path],
    overrides: Mapping[str, Any] | None = None,
    prompts_folder: Path | None = None,
) -> Profile:
    """Read, merge and validate a configuration.

    Args:
        files: YAML files, the base first, overlays after it.
        overrides: values of `--config`; strings in them are read as YAML scalars, so that
            they give the same cells as the same values in a file.
        prompts_folder: where the prompts are; with it, a refusal also lists the files that
            sound entries name and this machine lacks (`check_files` checks a sound profile).

    Raises:
        ConfigError: anything is wrong; the message lists every problem.
    """
    merged: dict[str, Any] = {}
    try:
        for file in files:
            merged = merge(merged, read_yaml(file))
        merged = merge(merged, _retype(dict(overrides or {})))
    except RecursionError:
        raise ConfigError(
            f"{', '.join(map(str, files))}: a mapping holds itself; write it out without anchors"
        ) from None
    try:
        return Profile.model_validate(merged)
    except ValidationError as error:
        problems = _problems(error, merged, prompts_folder)
    raise _refusal(problems)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, or no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text ({error}); save it as UTF-8") from None
    try:
        loader = _UniqueKeyLoader(text)
        loader.name = str(file)
        content = loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"{file} is not valid YAML: {error}; mend or quote it") from None
    except RecursionError:
        raise ConfigError(f"{file} nests deeper than any configuration; mend it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping of keys, not {type(content).__name__}")
    return content


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another.

    Named collections are replaced whole, and so is a mapping that changes its kind (a forced
    volume over a natural one), because the keys of the other kind mean nothing in it. A null
    over a mapping removes it.
    """
    merged = dict(base)
    for key, above in overlay.items():
        below = merged.get(key)
        if above is None and isinstance(below, Mapping):
            del merged[key]
        elif (
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
    """Give the strings of `--config` the scalar types that YAML would have given them.

    Structure is there already, so what reads as a collection or a date is text.
    """
    if isinstance(value, Mapping):
        return {key: _retype(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_retype(item) for item in value]
    if isinstance(value, str):
        try:
            scalar = _UniqueKeyLoader(value).get_single_data()
        except (yaml.YAMLError, ValueError, RecursionError, ConfigError):
            return value  # ValueError: a date that does not exist; ConfigError: a name given twice
        return scalar if scalar is None or isinstance(scalar, bool | int | float) else value
    return value


def _problems(
    error: ValidationError, merged: Mapping[str, Any], prompts_folder: Path | None
) -> list[str]:
    described = (_describe(problem, merged) for problem in error.errors())
    problems = [line for text in described for line in text.split(SEPARATOR)]
    backbones = _sound(merged.get("backbones"), Backbone)
    datasets = _sound(merged.get("datasets"), Dataset)
    experiments = _sound(merged.get("experiments"), Experiment)
    listed = {
        key: set(value) if isinstance(value := merged.get(key), Mapping) else set()
        for key in ("backbones", "datasets")
    }
    between = cross_problems(backbones, datasets, experiments, listed=listed)
    problems += [line for line in between if line not in problems]
    if prompts_folder is not None:
        problems += _missing(backbones, datasets, experiments, prompts_folder)
    return problems


def _describe(problem: Any, merged: Mapping[str, Any]) -> str:
    """One pydantic problem as `key: what is wrong (value): remedy`."""
    where = ".".join(_keys(problem, merged))
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "value_error":
        message = str(context["error"])
        return f"{where}: {message}" if where else message
    if kind == "extra_forbidden":
        return f"{where}: unknown key; config/README.md lists every key"
    if kind == "missing":
        return f"{where}: required and missing; config/README.md says what it means"
    if kind == "union_tag_not_found":
        key = context["discriminator"].strip("'")
        return f"{where}: {key} is required and missing; config/README.md says what it means"
    if isinstance(value, Mapping | list) and len(value) == 0:
        return f"{where}: is empty; name at least one entry"
    return f"{where}: {_shown(value)} is refused: {problem['msg']}"


def _shown(value: Any) -> str:
    """A value as a message may show it: on one line, of bounded length."""
    if isinstance(value, Mapping | list):
        return "a collection"
    if isinstance(value, str) and "://" in value and {"@", "?", "#"} & {*value}:
        return "an address (it is not shown, because it may hold a key)"
    try:
        text = repr(value)
    except ValueError:  # more digits than Python turns into text
        return "a number of thousands of digits"
    return text if len(text) <= NUM_SHOWN_CHARS else f"{text[:NUM_SHOWN_CHARS]}..."


def _plain(text: str) -> str:
    """A key or path as a message may show it: as it is, or quoted where that would break a line."""
    return text if text.isprintable() and len(text) <= NUM_SHOWN_CHARS else _shown(text)


def _keys(problem: Any, merged: Mapping[str, Any]) -> list[str]:
    """The keys that lead to a problem, as they stand in the file.

    pydantic also names the kind it chose for an entry ("forced", "hub"); that is no key there.
    """
    keys: list[str] = []
    below: Any = merged
    location = problem["loc"]
    for position, part in enumerate(location):
        is_missing_key = problem["type"] == "missing" and position == len(location) - 1
        if isinstance(below, Mapping) and part not in below and not is_missing_key:
            continue
        keys.append(_plain(str(part)))
        try:
            below = below[part]
        except (KeyError, IndexError, TypeError):
            below = None
    return keys


def _sound(entries: Any, model: Any) -> dict[str, Any]:
    """The entries that are sound in themselves: checks between entries go on with these."""
    sound = {}
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        try:
            sound[name] = adapter.validate_python(entry)
        except ValidationError:
            continue
    return sound


def missing_files(profile: Profile, prompts_folder: Path) -> list[str]:
    """Paths that the profile names and this machine does not have."""
    problems = _missing(profile.backbones, profile.datasets, profile.experiments, prompts_folder)
    embedder, judge = profile.embedder, profile.judge
    if embedder.kind == "path" and not _is_there(embedder.path, Path.is_dir):
        problems.append(f"embedder.path: {_plain(embedder.path)} is no folder")
    corpus = profile.mxfp4.corpus if profile.mxfp4 else None
    if corpus is not None and corpus.kind == "path" and not _is_there(corpus.folder, Path.is_dir):
        problems.append(f"mxfp4.corpus.folder: {_plain(corpus.folder)} is no folder")
    if judge is not None:
        problems += [f"judge: {line}" for line in _prompt_problems(prompts_folder, judge.prompt)]
    return problems


def _missing(
    backbones: Mapping[str, Backbone],
    datasets: Mapping[str, Dataset],
    experiments: Mapping[str, Experiment],
    prompts_folder: Path,
) -> list[str]:
    problems = []
    for name, dataset in datasets.items():
        source = dataset.source
        if source.kind == "path" and not _is_there(source.path, Path.is_file):
            problems.append(f"datasets.{name}.source.path: {_plain(source.path)} is no file")
    for name, backbone in backbones.items():
        model = backbone.model
        if model.source == "path" and not _is_there(model.path, Path.is_dir):
            problems.append(f"backbones.{name}.model.path: {_plain(model.path)} is no folder")
    for name, experiment in experiments.items():
        for prompt in experiment.prompt_names():
            problems += [
                f"experiments.{name}: {problem}"
                for problem in _prompt_problems(prompts_folder, prompt)
            ]
    return problems


def _is_there(path: str, test: Callable[[Path], bool]) -> bool:
    """Whether there is such a file or folder; not of a name that no file system takes."""
    try:
        return test(Path(path))
    except (OSError, ValueError):
        return False


def _prompt_problems(folder: Path, name: str) -> list[str]:
    if not prompt_path(folder, name).is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.md")))
        return [f"prompt {name!r} is no file of {folder} (it has: {known})"]
    try:
        load_prompt(folder, name)
    except ConfigError as error:
        return [str(error)]
    return []


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
    if profile.embedder.kind == "hub" and profile.embedder.revision == UNPINNED:
        keys.append(("embedder", "revision"))
    judge = profile.judge
    if judge is not None and judge.model is not None and judge.model.revision == UNPINNED:
        keys.append(("judge", "model", "revision"))
    if profile.mxfp4 is not None:
        keys += [
            ("mxfp4", name, "revision")
            for name in ("corpus", "tokenizer")
            if getattr(getattr(profile.mxfp4, name), "revision", None) == UNPINNED
        ]
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

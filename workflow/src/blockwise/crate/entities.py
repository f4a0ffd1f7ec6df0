"""The metadata of a crate: a run in the words of the Workflow Run Crate profile, version 0.5.

The profile rests on RO-Crate 1.1. Provenance Run Crate, which adds a step an action, is not
claimed: a run keeps times of its cells, not of Snakemake's jobs. What a run does not know
(who ran it, above all) is left out unless somebody says it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model import ComputationalWorkflow, ContextEntity, File, Person
from rocrate.rocrate import ROCrate

from blockwise.artifacts import digest_file
from blockwise.config.backbones import Backbone
from blockwise.config.claims import Paper
from blockwise.crate.run_entities import CONFIG, MANIFEST, REPORT, CrateFile, FinishedRun
from blockwise.figures.registry import FIGURES
from blockwise.report.captions import title_of

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
PAPERS = {
    Paper.COMPACTION: "Parallel Context Compaction for Long-Horizon LLM Agent Serving",
    Paper.MXFP4: "Pretraining large language models with MXFP4",
}
LICENCE = "https://spdx.org/licenses/Apache-2.0"
COMPLETED = "http://schema.org/CompletedActionStatus"
WORKFLOW_TYPE = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
EXTRA_TERMS = {"sha256": "http://schema.org/sha256"}  # schema.org has it since RO-Crate 1.1
ENCODINGS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".yaml": "application/yaml",
}
SNAKEFILE, README = "Snakefile", "README.md"
CLAIMS, PROMPTS = "config/claims.yaml", "config/prompts"
CODE_FILES = {
    "workflow/rules/*.smk": "Rules of the workflow.",
    "config/*.yaml": "Configuration as its author wrote it.",
    f"{PROMPTS}/*.md": "A compaction prompt.",
    "envs/*.lock": "Every package of one environment, each at its exact version.",
    README: "How to run the workflow, and how to read its tables.",
    "LICENSE": "The licence of the code, and of this crate.",
}
"""Files of the code that are listed one by one; the rest is in folders."""

FOLDERS = {
    "config": "Configurations, prompts, and the claims with their rules.",
    PROMPTS: "The prompts of the compactions.",
    "envs": "How the environment is made.",
    "workflow": "Rules, package, tests and documents of the workflow.",
}


@dataclass(frozen=True)
class Agent:
    """Who ran the workflow, as the one who deposits it says."""

    name: str
    orcid: str | None  # https://orcid.org/...


def describe(run: FinishedRun, code: Path, code_note: str | None, agent: Agent | None) -> ROCrate:
    """The crate of a run, not yet written.

    Args:
        run: the run.
        code: folder with the code of the run.
        code_note: why the code may differ from what ran, if it may.
        agent: who ran it, if that is to be said.
    """
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(EXTRA_TERMS)
    workflow = _add_workflow(crate, run, code)
    _add_folders(crate, run)
    code_files = list(_add_code_files(crate, code))
    run_files = [_add_run_file(crate, run, file) for file in run.files]
    action = _add_action(crate, run, workflow, code_files, run_files)
    _add_parameters(crate, run, workflow)
    _describe_root(crate, run, action, code_note)
    if agent is not None:
        person = crate.add(Person(crate, agent.orcid or "#agent", {"name": agent.name}))
        action["agent"] = person
        crate.root_dataset["author"] = person
    return crate


def _describe_root(
    crate: ROCrate, run: FinishedRun, action: ContextEntity, code_note: str | None
) -> None:
    root = crate.root_dataset
    crate.name = f"blockwise: a run of the profile {run.profile.profile}"
    crate.description = " ".join(filter(None, [*scale(run), code_note]))
    crate.datePublished = run.manifest.written_at
    crate.license = _add(crate, LICENCE, "CreativeWork", name="Apache License 2.0", url=LICENCE)
    root["conformsTo"] = [
        _add(crate, uri, "CreativeWork", name=name, version=uri.rsplit("/", 1)[1])
        for uri, name in PROFILES.items()
    ]
    root["citation"] = [
        _add(crate, f"https://arxiv.org/abs/{paper}", "ScholarlyArticle", name=title)
        for paper, title in PAPERS.items()
    ]
    root["mentions"] = action
    _entity(crate, README)["about"] = root


def scale(run: FinishedRun) -> Iterator[str]:
    """What was run and how large it was, in sentences."""
    profile = run.profile
    yield (
        "Tables and figures of a reproduction of two papers, on parallel context compaction and "
        "on MXFP4 pretraining, with the workflow and configuration that made them."
    )
    yield f"Backbones: {_listed(_backbone_words(*one) for one in profile.backbones.items())}."
    datasets = (f"{name} ({one.source.kind})" for name, one in profile.datasets.items())
    yield f"Datasets: {_listed(datasets)}."
    yield f"MXFP4 training: {profile.mxfp4.caption if profile.mxfp4 else 'not part of this run'}."
    yield (
        "Records of single cells and the data of the sessions are not included; the manifest "
        "has the digests of what the tables were made from."
    )


def _backbone_words(name: str, backbone: Backbone) -> str:
    return f"{name} ({backbone.num_parameters / 1e6:.3g}M parameters, {backbone.weights} weights)"


def _listed(words: Iterator[str]) -> str:
    return ", ".join(words)


def _add_workflow(crate: ROCrate, run: FinishedRun, code: Path) -> ComputationalWorkflow:
    workflow = crate.add_workflow(
        code / SNAKEFILE,
        SNAKEFILE,
        main=True,
        lang="snakemake",
        lang_version=run.manifest.packages["snakemake"],
        properties={
            "name": "blockwise",
            "description": "From datasets and backbones to every table and figure.",
            "version": run.version,
            **_content(code / SNAKEFILE),
        },
    )
    workflow["conformsTo"] = _add(
        crate, WORKFLOW_TYPE, "CreativeWork", name="Bioschemas ComputationalWorkflow 1.0"
    )
    workflow["softwareRequirements"] = [
        _add(crate, _package_url(name, version), "SoftwareApplication", name=name, version=version)
        for name, version in sorted(run.manifest.packages.items())
        if name != "blockwise"  # that is the workflow
    ]
    return workflow


def _package_url(name: str, version: str) -> str:
    """An identifier of the package-url specification."""
    kind = "generic" if name == "python" else "pypi"
    return f"pkg:{kind}/{name}@{quote(version, safe='')}"


def _add_folders(crate: ROCrate, run: FinishedRun) -> None:
    own = {
        str(run.tables): "Tables of the run, as tidy CSV.",
        str(run.figures): "Figures of the run, each as PDF, PNG and the plotted values.",
    }
    for path, description in {**FOLDERS, **own}.items():
        crate.add_dataset(
            dest_path=f"{path}/", properties={"name": path, "description": description}
        )


def _add_code_files(crate: ROCrate, code: Path) -> Iterator[File]:
    for pattern, description in CODE_FILES.items():
        for source in sorted(code.glob(pattern)):
            path = source.relative_to(code)
            properties = {"name": path.name, "description": description, **_content(source)}
            yield _add_file(crate, source, path, properties)


def _add_run_file(crate: ROCrate, run: FinishedRun, file: CrateFile) -> File:
    properties = {
        "name": file.path.name,
        "description": _description(run, file.path),
        "encodingFormat": _encoding(file.path),
        "contentSize": str(file.size_bytes),
        "sha256": file.sha256,
    }
    return _add_file(crate, file.path, file.path, properties)


def _add_file(crate: ROCrate, source: Path, path: Path, properties: dict[str, Any]) -> File:
    """Add a file, and to the innermost folder that is listed."""
    file = crate.add_file(source, path, properties=properties)
    folder = crate.dereference(f"{path.parent.as_posix()}/")
    if folder is not None:
        folder.append_to("hasPart", file)
    return file


def _description(run: FinishedRun, path: Path) -> str:
    if path.parent == run.figures:
        values = " The values that are plotted." if path.suffix == ".csv" else ""
        return f"{title_of(path.stem)}.{values}" if path.stem in FIGURES else "A figure."
    known = {
        CONFIG: "The configuration as it was resolved for the run.",
        MANIFEST: "A digest of every file that the run made, and what made them.",
        REPORT: "Claims, figures, tables and provenance in one file.",
        "data_dictionary.csv": "What every column of every table means.",
    }
    if path.name in known:
        return known[path.name]
    if path.parent == run.tables and path.suffix == ".csv":
        return "A table of the run; data_dictionary.csv explains its columns."
    return "What made the tables." if path.parent == run.tables else "A page of the report."


def _encoding(path: Path) -> str:
    return ENCODINGS.get(path.suffix, "text/plain")


def _content(path: Path) -> dict[str, str]:
    return {
        "encodingFormat": _encoding(path),
        "contentSize": str(path.stat().st_size),
        "sha256": digest_file(path),
    }


def _add_action(
    crate: ROCrate,
    run: FinishedRun,
    workflow: ComputationalWorkflow,
    code_files: Sequence[File],
    run_files: Sequence[File],
) -> ContextEntity:
    config = _entity(crate, str(run.results / CONFIG))
    inputs = [config, _entity(crate, f"{PROMPTS}/")]
    inputs += [one for one in code_files if one.id.startswith((CLAIMS, PROMPTS))]
    results = [_entity(crate, f"{folder}/") for folder in (run.tables, run.figures)]
    results += [one for one in run_files if one is not config]
    properties = {
        "name": f"Run of the profile {run.profile.profile}",
        "description": "Run by Snakemake, possibly in several sittings: finished cells are kept. "
        "It ended with the manifest; where a start is given, the earliest record was begun then.",
        "endTime": run.manifest.written_at,
        "actionStatus": COMPLETED,
    }
    if run.began_at is not None:
        properties["startTime"] = run.began_at
    return crate.add_action(
        workflow, identifier="#run", object=inputs, result=results, properties=properties
    )


def _add_parameters(crate: ROCrate, run: FinishedRun, workflow: ComputationalWorkflow) -> None:
    """Tie what the workflow takes and gives, as such, to what it took and gave here."""
    slots = (
        ("input", "configuration", "File", str(run.results / CONFIG)),
        ("input", "claims", "File", CLAIMS),
        ("input", "prompts", "Dataset", f"{PROMPTS}/"),
        ("output", "tables", "Dataset", f"{run.tables}/"),
        ("output", "figures", "Dataset", f"{run.figures}/"),
        ("output", "manifest", "File", str(run.results / MANIFEST)),
    )
    for direction, name, kind, path in slots:
        example = _entity(crate, path)
        parameter = crate.add_formal_parameter(
            name,
            kind,
            identifier=f"#{name}",
            valueRequired=direction == "input",
            properties={"workExample": {"@id": example.id}},
        )
        example["exampleOfWork"] = parameter
        workflow.append_to(direction, parameter)


def _entity(crate: ROCrate, path: str) -> Any:
    entity = crate.dereference(quote(path))
    assert entity is not None, f"{path} is not in the crate"
    return entity


def _add(crate: ROCrate, identifier: str, kind: str, **properties: str) -> ContextEntity:
    return crate.add(ContextEntity(crate, identifier, {"@type": kind, **properties}))

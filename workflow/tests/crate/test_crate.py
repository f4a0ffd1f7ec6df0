"""The crate of a run: the committed snapshot of the default run, laid out as a run leaves it."""

import contextlib
import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import build_env
import pytest
from environments import CRATE

from blockwise.artifacts import canonical_json, digest_file, read_model, write_bytes, write_model
from blockwise.config.load import load_profile
from blockwise.crate.code import place_code
from blockwise.crate.entities import Agent
from blockwise.crate.write import AgentError, agent_of, write_crate
from blockwise.errors import ArtifactError
from blockwise.provenance import git_state
from blockwise.run.manifest import Manifest, write_manifest
from blockwise.tables.write import PROVENANCE

RESULTS = "results/default"
METADATA = "ro-crate-metadata.json"
BEGAN = {name: f"2026-11-21T1{8 - i}:00:00+00:00" for i, name in enumerate(PROVENANCE)}
AGENT = Agent("Ada Lovelace", "https://orcid.org/0000-0002-1825-0097")


def lay_out(project_folder, target):
    """The snapshot under the paths of a run, with a manifest of what is there."""
    reference, results = project_folder / "results/reference", target / RESULTS
    shutil.copytree(reference, results / "tables", ignore=shutil.ignore_patterns("MANIFEST.json"))
    shutil.copytree(project_folder / "figures/reference", target / "figures/default")
    for family, name in PROVENANCE.items():
        path = results / "tables" / name
        made = {**json.loads(path.read_text()), "began_at": BEGAN[family]}
        path.write_text(json.dumps(made))
    profile = load_profile([project_folder / "config/config.yaml"]).model_dump(mode="json")
    write_bytes(results / "config.json", canonical_json(profile).encode())
    write_bytes(results / "runs/judge/answers.json", b'{"question": "of a dataset"}')
    listed = {
        str(path.relative_to(target)): digest_file(path)
        for path in target.rglob("*")
        if path.is_file()
    }
    old = read_model(reference / "MANIFEST.json", Manifest)
    commit, dirty = git_state()
    manifest = old.model_copy(update={"files": listed, "commit": commit, "dirty": dirty})
    write_model(results / "MANIFEST.json", manifest)
    return target


@pytest.fixture(scope="module")
def finished(tmp_path_factory, project_folder):
    folder = lay_out(project_folder, tmp_path_factory.mktemp("crate") / "run")
    (folder / RESULTS / "report.html").write_text("<!doctype html>")
    write(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(
        finished, tmp_path / "run", ignore=shutil.ignore_patterns("crate", "report.html")
    )


def write(folder, **arguments):
    with contextlib.chdir(folder):
        return folder / write_crate(Path(RESULTS), **arguments)


def entities(folder):
    graph = json.loads((folder / RESULTS / "crate" / METADATA).read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}


def ids(value):
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_every_listed_file_is_in_the_crate_with_its_size_and_digest(finished):
    crate, listed = finished / RESULTS / "crate", entities(finished)
    sealed = [one for one in listed.values() if "sha256" in one]
    assert len(sealed) > 60
    for one in sealed:
        assert digest_file(crate / one["@id"]) == one["sha256"]
        assert (crate / one["@id"]).stat().st_size == int(one["contentSize"])
    assert set(ids(listed["./"]["hasPart"])) >= {one["@id"] for one in sealed}


def test_all_of_the_run_but_the_data_of_others_is_a_result(finished):
    manifest = read_model(finished / RESULTS / "MANIFEST.json", Manifest)
    given = set(ids(entities(finished)["#run"]["result"]))
    own = {f"{RESULTS}/{name}" for name in ("MANIFEST.json", "report.html")}
    kept = f"{RESULTS}/runs/judge/answers.json"
    inputs = {f"{RESULTS}/config.json", kept}
    folders = {f"{RESULTS}/tables/", "figures/default/"}
    assert given == {*manifest.files, *own, *folders} - inputs
    assert not (finished / RESULTS / "crate" / kept).exists()


def test_the_action_says_what_the_run_knows_and_no_more(finished):
    listed = entities(finished)
    action, manifest = listed["#run"], read_model(finished / RESULTS / "MANIFEST.json", Manifest)
    assert action["instrument"] == {"@id": "Snakefile"} == listed["./"]["mainEntity"]
    assert action["endTime"] == manifest.written_at
    assert action["startTime"] == min(BEGAN.values())
    assert {f"{RESULTS}/config.json", "config/claims.yaml"} < set(ids(action["object"]))
    assert "agent" not in action
    assert "author" not in listed["./"]
    packages = ids(listed["Snakefile"]["softwareRequirements"])
    torch = manifest.packages["torch"].replace("+", "%2B")
    assert f"pkg:pypi/torch@{torch}" in packages
    assert "M parameters, published weights)" in listed["./"]["description"]
    assert ids(listed["./"]["citation"]) == [
        "https://arxiv.org/abs/2605.23296",
        "https://arxiv.org/abs/2605.09825",
    ]


def test_whoever_is_named_is_agent_and_author(run):
    write(run, agent=AGENT)
    listed = entities(run)
    assert listed["#run"]["agent"] == listed["./"]["author"] == {"@id": AGENT.orcid}
    assert listed[AGENT.orcid]["name"] == AGENT.name
    assert agent_of({"RUN_BY": AGENT.name, "ORCID": AGENT.orcid}) == AGENT
    assert agent_of({"RUN_BY": "", "ORCID": ""}) is None
    for wrong in ({"ORCID": AGENT.orcid}, {"RUN_BY": "Ada", "ORCID": "0000-0002"}):
        with pytest.raises(AgentError, match="ORCID"):
            agent_of(wrong)


def test_what_the_run_does_not_know_is_left_out(run):
    with contextlib.chdir(run):
        paths = [path for path in run.rglob("*") if path.is_file() and path.name != "MANIFEST.json"]
        for name in PROVENANCE.values():
            (run / RESULTS / "tables" / name).write_text("{}")
        manifest = run / RESULTS / "MANIFEST.json"
        write_manifest(manifest, [path.relative_to(run) for path in paths])
        old = read_model(manifest, Manifest)
        write_model(manifest, old.model_copy(update={"commit": None, "dirty": None}))
    write(run)
    assert "startTime" not in entities(run)["#run"]
    assert entities(run)["Snakefile"]["version"] == old.packages["blockwise"]
    assert "outside a git checkout" in entities(run)["./"]["description"]


def test_equal_runs_give_equal_bytes_and_a_second_crate_replaces_the_first(run):
    first = contents(write(run))
    crate = run / RESULTS / "crate"
    (crate / "leftover").write_text("of an earlier run")
    (run / RESULTS / ".crate.unfinished").mkdir()
    assert contents(write(run)) == first
    assert [path.name for path in crate.parent.glob(".crate*")] == []


def damage_a_table(run):
    (run / RESULTS / "tables/engine_cards.csv").write_text("edited")


def lose_a_figure(run):
    (run / "figures/default/compaction_layouts.png").unlink()


def lose_the_manifest(run):
    (run / RESULTS / "MANIFEST.json").unlink()


def change_the_configuration(run):
    (run / RESULTS / "config.json").write_text("{}")


def keep_an_old_report(run):
    report = run / RESULTS / "report.html"
    report.write_text("of the run before")
    os.utime(report, (0, 0))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage_a_table, r"1 files of .*`make reproduce`.*\n.*engine_cards\.csv: damaged"),
        (lose_a_figure, r"compaction_layouts\.png: missing"),
        (lose_the_manifest, r"no MANIFEST\.json.*`make reproduce` finishes"),
        (change_the_configuration, r"config\.json: damaged"),
        (keep_an_old_report, r"report\.html: older than MANIFEST\.json; `make report`"),
    ],
)
def test_a_run_that_is_not_whole_is_refused_and_the_crate_before_it_kept(run, spoil, said):
    (run / RESULTS / "crate").mkdir()
    spoil(run)
    with pytest.raises(ArtifactError, match=said):
        write(run)
    assert list((run / RESULTS).glob("*crate*")) == [run / RESULTS / "crate"]


def test_the_code_is_that_of_the_runs_commit_and_not_what_came_after(tmp_path):
    project = tmp_path / "project"
    for name in ("config", "envs", "workflow"):
        write_bytes(project / name / "file", b"")
    for name in ("Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        write_bytes(project / name, b"")
    (project / "Snakefile").write_text("of the run")
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "run")):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    show = ["git", "-C", str(project), "rev-parse", "HEAD"]
    commit = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    (project / "Snakefile").write_text("of today")
    said = {}
    for name, found, dirty in (
        ("same", commit, False),
        ("dirty", commit, True),
        ("unknown", "0" * 40, False),
    ):
        (tmp_path / name).mkdir()
        said[name] = place_code(project, found, dirty, tmp_path / name)
    assert (tmp_path / "same/Snakefile").read_text() == "of the run"
    assert said["same"] is None
    for name, why in (("dirty", "changes beside commit"), ("unknown", "not in this checkout")):
        assert (tmp_path / name / "Snakefile").read_text() == "of today"
        assert why in said[name]


def test_every_word_of_the_metadata_is_one_of_ro_crate_1_1(finished):
    shipped = json.loads((files("rocrate") / "data" / "ro-crate.jsonld").read_text())
    metadata = json.loads((finished / RESULTS / "crate" / METADATA).read_text())
    url, own = metadata["@context"]
    assert url == shipped["@id"] == "https://w3id.org/ro/crate/1.1/context"
    known = {*shipped["@context"], *own, "@id", "@type"}
    described = entities(finished)
    for entity in metadata["@graph"]:
        kinds = entity["@type"] if isinstance(entity["@type"], list) else [entity["@type"]]
        assert {*entity, *kinds} <= known
    for link in (one for entity in metadata["@graph"] for one in entity.values()):
        for one in link if isinstance(link, list) else [link]:
            if isinstance(one, dict):
                assert one["@id"] in described or one["@id"].startswith("https://")


VALIDATOR = build_env.ROOT / CRATE.folder
IS_MADE = build_env.read_stamp(VALIDATOR) == build_env.wanted_stamp(build_env.ROOT, CRATE)


@pytest.mark.skipif(not IS_MADE, reason=f"needs {CRATE.folder}: `{CRATE.make_command}` makes it")
def test_the_validator_finds_nothing_against_the_profile(finished):
    validate = build_env.ROOT / "envs/validate_crate.py"
    done = subprocess.run(
        [str(VALIDATOR / "bin/python"), str(validate), str(finished / RESULTS / "crate")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 issues at required" in done.stdout

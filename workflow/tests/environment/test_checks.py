import sys

import pytest

from blockwise.dev import checks

LINT_OUTPUT = """\
Building DAG of jobs...
Lints for snakefile /x/Snakefile:
    * Absolute path "/data" in line 3:
      Do not define absolute paths inside of the workflow.
Lints for rule plot_figure (line 6, /x/workflow/rules/figures.smk):
    * No log directive defined:
      Without a log directive, all output will be printed to the terminal.
      Also see:
      the manual
    * Specify a conda environment or container for each rule.:
      This way, the used software is documented.
"""
FOUND = [
    checks.Lint("Snakefile", 'Absolute path "/data" in line 3'),
    checks.Lint("plot_figure", "No log directive defined"),
    checks.Lint("plot_figure", "Specify a conda environment or container for each rule."),
]


def test_lints_are_read_from_what_snakemake_prints():
    assert checks.parse_lints(LINT_OUTPUT) == FOUND


def test_a_lint_needs_a_line_and_a_line_needs_a_lint():
    allowed = checks.parse_allowed(
        ["# heading", "", "* | Specify * | one environment", "plot_* | Mixed * | because"]
    )
    problems = checks.compare_lints(FOUND[1:], allowed)
    assert problems == [
        "plot_figure: No log directive defined (mend it, or list it with a reason)",
        "allowed but not found: plot_* | Mixed * (remove it)",
    ]


@pytest.mark.parametrize("line", ["* | No log directive defined", "* | No log |", "words"])
def test_an_allowed_lint_without_a_reason_is_refused(line):
    with pytest.raises(checks.ChecksError, match=r"not `rule \| lint \| reason`"):
        checks.parse_allowed([line])


def test_every_profile_beside_the_base_is_dry_run(tmp_path):
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text("profile: default\n")
    (config / "paper.yaml").write_text("# scale\nprofile: paper\n")
    (config / "claims.yaml").write_text("claims: []\n")
    (config / "profiles/slurm").mkdir(parents=True)
    (config / "profiles/slurm/config.yaml").write_text("executor: slurm\n")
    names = [check.name for check in checks.list_checks(tmp_path) if "dry run" in check.name]
    assert names == ["dry run config.yaml", "dry run paper.yaml", "dry run on slurm"]


def test_a_failing_check_shows_its_output_and_keeps_it(tmp_path):
    failing = checks.Check("some check", [sys.executable, "-c", "print('why'); exit(1)"])
    assert checks.run_check(failing, tmp_path) == ["why", "(all of it: logs/check/some-check.log)"]
    assert (tmp_path / "logs/check/some-check.log").read_text() == "why\n"
    assert checks.run_check(checks.Check("fine", ["true"]), tmp_path) == []


WAIT_FOR_THE_OTHER = """
import pathlib, time
pathlib.Path("{own}").touch()
for _ in range(6000):
    if pathlib.Path("{other}").exists():
        exit({status})
    time.sleep(0.01)
exit("the other one does not run beside this one")
"""


def test_checks_run_side_by_side_and_are_reported_in_their_order(tmp_path, capsys):
    codes = [
        WAIT_FOR_THE_OTHER.format(own=own, other=other, status=status)
        for own, other, status in (("b", "a", 1), ("a", "b", 0))
    ]
    pair = [checks.Check(f"check {n}", [sys.executable, "-c", codes[n]]) for n in range(2)]
    assert checks.run_checks(pair, tmp_path, num_at_once=2) == ["check 0"]
    said = capsys.readouterr().out
    assert [word for word in said.split() if word in ("FAILED", "ok")] == ["FAILED", "ok"]
    assert "status 1 without a word" in said


def test_a_lint_that_never_ran_is_not_taken_for_a_clean_one(tmp_path):
    (tmp_path / "workflow/tests").mkdir(parents=True)
    (tmp_path / checks.LINT_ALLOW_FILE).write_text("")
    crashed = checks.Check("lint", [sys.executable, "-c", "exit('bad config')"], compares_lint=True)
    assert checks.run_check(crashed, tmp_path)[0] == "bad config"


def test_the_committed_list_gives_reasons(project_folder):
    assert checks.parse_allowed((project_folder / checks.LINT_ALLOW_FILE).read_text().splitlines())

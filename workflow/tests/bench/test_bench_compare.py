"""Comparing benchmark runs: what is called slower, faster, the same, or too little to say."""

import sys

import pytest

from blockwise.bench import compare
from blockwise.bench.compare import FASTER, FEW, SAME, SLOWER, changes, load_reports
from blockwise.bench.pipeline import dry_run_s
from blockwise.bench.rounds import FEWEST_ROUNDS, figure, publish
from blockwise.errors import ArtifactError, BlockwiseError

STEADY = [1.00, 1.01, 0.99, 1.02, 0.98]
SLOW = [value * 1.5 for value in STEADY]


def outcome(old, new, *, at_least=False, unit="x"):
    one, other = (
        {("bench", "x"): figure("x", unit, values, 2.0, at_least)} for values in (old, new)
    )
    (change,) = changes(one, other)
    return change.outcome


@pytest.mark.parametrize(
    ("old", "new", "at_least", "expected"),
    [
        (STEADY, SLOW, False, SLOWER),
        (SLOW, STEADY, False, FASTER),
        (STEADY, SLOW, True, FASTER),  # a speed-up that grew
        (SLOW, STEADY, True, SLOWER),
        (STEADY, [value + 0.005 for value in STEADY], False, SAME),
        (STEADY, [1.03, 1.04, 1.03, 1.04, 1.03], False, SAME),  # beyond the noise, and nothing
        (STEADY, [value + 0.15 for value in STEADY], False, SAME),  # a machine may do that
        ([0.5, 1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 3.0, 5.0, 9.0], False, SAME),
        ([1.0, 1.0], [2.0, 2.0], False, FEW),
    ],
)
def test_outcomes(old, new, at_least, expected):
    assert outcome(old, new, at_least=at_least) == expected


def test_seconds_of_another_run_may_be_half_as_many_again():
    crawling = [value * 2.5 for value in STEADY]
    assert outcome(STEADY, SLOW, unit="s") == SAME
    assert outcome(STEADY, crawling, unit="s") == SLOWER


@pytest.mark.parametrize(
    ("num_rounds", "expected"), [(FEWEST_ROUNDS, SLOWER), (FEWEST_ROUNDS - 1, FEW)]
)
def test_the_default_rounds_are_the_fewest_that_can_tell_one_of_a_dozen(num_rounds, expected):
    old, new = (
        {
            ("bench", str(number)): figure(str(number), "x", values, 2.0, at_least=False)
            for number in range(12)
        }
        for values in (range(1, num_rounds + 1), range(11, num_rounds + 11))
    )
    assert {change.outcome for change in changes(old, new)} == {expected}


def test_reports_are_read_back_and_a_slower_one_ends_with_an_error(tmp_path, monkeypatch, capsys):
    for name, values in (("old", STEADY), ("new", SLOW)):
        figures = [figure("step", "x", values, 2.0, at_least=False)]
        if name == "new":
            figures.append(figure("other", "s", [1.0], 2.0, at_least=False))
        publish(tmp_path / name / "pipeline.json", "pipeline", "subject", figures)
    found = load_reports(tmp_path / "old")
    assert found["pipeline", "step"].rounds == tuple(STEADY)
    arguments = ["compare", str(tmp_path / "old"), str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(BlockwiseError, match="1 of 1 figures got worse: step"):
        compare.main()
    assert "only in one of them: pipeline: other" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="holds no benchmark report; `make bench`"):
        load_reports(tmp_path)


def test_a_failed_dry_run_is_no_measurement(tmp_path):
    (tmp_path / "Snakefile").write_text("rule all:\n    input: 'nowhere'\n")
    with pytest.raises(BlockwiseError, match=r"dry run of .*Snakefile failed: (.|\n)*nowhere"):
        dry_run_s(tmp_path / "Snakefile", tmp_path)

"""The tables about the volume of single compactions: length, repeats, prompts."""

import math
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest

from blockwise.compaction.similarity import NO_WORD, Similarities, SummaryGroup
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.errors import ArtifactError
from blockwise.statistics import MIN_REPEATS, PROVEN_CV
from blockwise.tables.compaction import (
    compaction_length_invariance,
    compaction_stability,
    compaction_volume_control,
)
from blockwise.tables.compaction.parts.gates import PRECEDENCE, Gate, gate_of
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, loaded, record, request

TEXTS = tuple(f"summary {index}" for index in range(MIN_REPEATS))


def single(
    output_tokens,
    *,
    study,
    input_tokens=1000,
    num_cut=0,
    temperature=1.0,
    weights=Weights.PUBLISHED,
    prompt="detailed",
    target_frac=None,
    history_tokens=1024,
    text="words",
    **changes,
):
    """A cell of one compaction of natural volume, by one worker."""
    spec = {
        "protocol": "single",
        "volume_mode": "natural",
        "volume_tokens": 64,
        "history_tokens": history_tokens,
        "request": {"temperature": temperature},
    }
    done = compaction(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        num_blocks=1,
        num_length_finishes=num_cut,
    )
    made = record(
        spec=spec, compactions=(done,), requests=(request("worker", text=text),), **changes
    )
    key = f"{made.cell_key}-{history_tokens}-{prompt}"
    labels = {"weights": weights, "prompt": prompt, "target_frac": target_frac}
    return loaded(made.model_copy(update={"cell_key": key}), study=study, **labels)


def build(module, cells, *similarities):
    return module.build(TableInputs(cells=cells, similarities=similarities))


def only_row(table):
    assert len(table) == 1
    return table.iloc[0]


def lengths(exponent, num_sessions=2, **changes):
    """Sessions whose output grows as a power of their input, each at a level of its own."""
    return [
        single(
            round((50 + 10 * index) * (tokens / 1000) ** exponent),
            study=Study.LENGTH_INVARIANCE,
            input_tokens=tokens,
            history_tokens=tokens + 24,
            session_id=f"s{index}",
            **changes,
        )
        for index, tokens in product(range(num_sessions), (1000, 2000, 4000))
    ]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_elasticity_is_the_power_with_which_output_grows(exponent):
    table = build(compaction_length_invariance, lengths(exponent))
    assert list(table.history_tokens) == [1024, 2024, 4024]
    assert list(table.output_elasticity) == pytest.approx([exponent] * 3, abs=0.02)
    assert set(table.output_elasticity_num_clusters) == {2}
    assert set(table.output_elasticity_num_lengths) == {3}
    assert table.output_elasticity_low.isna().all()


def test_six_sessions_earn_the_elasticity_an_interval():
    row = build(compaction_length_invariance, lengths(0.5, num_sessions=6)).iloc[0]
    assert row.output_elasticity_low <= row.output_elasticity <= row.output_elasticity_high


def test_two_lengths_have_no_elasticity():
    cells = [cell for cell in lengths(1.0) if cell.record.spec.history_tokens < 4000]
    table = build(compaction_length_invariance, cells)
    assert table.output_elasticity.isna().all()
    assert set(table.output_elasticity_num_lengths) == {0}


def test_lengths_that_realise_the_same_history_count_once():
    same = [
        single(50, study=Study.LENGTH_INVARIANCE, history_tokens=tokens)
        for tokens in (1024, 1100, 1200)
    ]
    assert build(compaction_length_invariance, same).output_elasticity.isna().all()


def test_a_row_holds_the_realised_volumes_of_its_length():
    row = build(compaction_length_invariance, lengths(1.0)).iloc[1]
    assert (row.input_mean_tokens, row.num_cells, row.output_num_clusters) == (2000, 2, 2)
    assert (row.output_mean_tokens, row.output_min_tokens, row.output_max_tokens) == (110, 100, 120)
    assert row.output_over_input_mean_frac == pytest.approx(0.055)
    assert pd.isna(row.note)


def test_what_was_taught_is_no_finding():
    row = build(compaction_length_invariance, lengths(1.0, weights=Weights.POCKET)).iloc[0]
    assert "the length of its summaries was taught" in row.note
    assert "not testable at this scale" in row.note


def test_what_makes_invariance_trivial_is_said():
    cells = lengths(0.0, weights=Weights.RANDOM, num_cut=1)
    row = build(compaction_length_invariance, cells).iloc[0]
    assert row.length_finish_frac == 1.0
    assert "random weights" in row.note
    assert "not testable at this scale" in row.note
    assert "2 of 2 workers were cut off at their cap" in row.note
    assert "temperature" not in row.note  # nothing is repeated here


def repeats(volumes=range(40, 40 + MIN_REPEATS), texts=TEXTS, **changes):
    return [
        single(volume, study=Study.STABILITY, repeat=index, text=text, **changes)
        for index, (volume, text) in enumerate(zip(volumes, texts, strict=False))
    ]


def compared(cells, cosine=0.5, unknown=()):
    """Similarities of these repeats: all pairs alike, less those of the unknown ones."""
    everyone = range(len(cells))
    group = SummaryGroup(
        cell_keys=tuple(cell.record.cell_key for cell in cells),
        cosines=tuple(
            tuple(
                None if {one, other} & set(unknown) else 1.0 if one == other else cosine
                for other in everyone
            )
            for one in everyone
        ),
        undefined_reasons=tuple(NO_WORD if index in unknown else None for index in everyone),
    )
    return Similarities(
        backbone="smollm2-135m", dataset="hotpotqa", embedder="words in common", groups=(group,)
    )


def test_ten_repeats_earn_intervals():
    cells = repeats()
    row = only_row(build(compaction_stability, cells, compared(cells)))
    assert (row.num_repeats, row.cosine_num_repeats) == (MIN_REPEATS, MIN_REPEATS)
    assert (row.output_min_tokens, row.output_mean_tokens, row.output_max_tokens) == (40, 44.5, 49)
    assert row.output_cv_low < row.output_cv < row.output_cv_high
    assert row.output_cv == pytest.approx(math.sqrt(55 / 6) / 44.5)  # sd of 10 numbers in a row
    assert row.cosine_mean == pytest.approx(0.5)
    assert pd.notna(row.cosine_low)
    assert pd.notna(row.cosine_high)
    assert (row.embedder, row.temperature, row.identical_summaries_frac) == (
        "words in common",
        1.0,
        0.0,
    )
    assert pd.isna(row.note)


def test_an_interval_beyond_what_is_proven_is_open_or_absent_and_says_so():
    row = only_row(build(compaction_stability, repeats([5, 7, 9, 11, 13, 15, 17, 19, 40, 90])))
    assert row.output_cv > PROVEN_CV
    assert pd.notna(row.output_cv_low)
    assert pd.isna(row.output_cv_high)
    assert compaction_stability.HEAVY_TAIL in row.note
    cells = repeats()
    row = only_row(build(compaction_stability, cells, compared(cells, cosine=0.01)))
    assert (row.cosine_mean, row.note) == (pytest.approx(0.01), compaction_stability.NOT_PROVEN)
    assert pd.isna(row.cosine_low)
    assert pd.isna(row.cosine_high)


def test_fewer_repeats_have_values_and_no_interval():
    cells = repeats()[:-1]
    row = only_row(build(compaction_stability, cells, compared(cells)))
    assert row.output_cv > 0
    assert row.cosine_mean == pytest.approx(0.5)
    for name in ("output_cv_low", "output_cv_high", "cosine_low", "cosine_high"):
        assert pd.isna(row[name])


def test_one_repeat_has_no_spread_at_all():
    cells = repeats()[:1]
    row = only_row(build(compaction_stability, cells, compared(cells)))
    for name in ("output_cv", "cosine_mean", "identical_summaries_frac"):
        assert pd.isna(row[name])


def test_every_input_and_every_arm_has_a_row_of_its_own():
    cells = [
        *repeats(),
        *repeats(session_id="s1"),
        *repeats(history_tokens=2048),
        *repeats(arm="target_block", block_size_tokens=512),
    ]
    table = build(compaction_stability, cells)
    assert sorted(zip(table.session_id, table.history_tokens, table.arm, strict=True)) == [
        ("s0", 1024, "sequential"),
        ("s0", 1024, "target_block"),
        ("s0", 2048, "sequential"),
        ("s1", 1024, "sequential"),
    ]
    assert set(table.num_repeats) == {MIN_REPEATS}


def test_greedy_repeats_of_random_weights_say_what_they_are():
    cells = repeats(
        [64] * MIN_REPEATS, ["same"] * MIN_REPEATS, temperature=0, weights=Weights.RANDOM
    )
    row = only_row(build(compaction_stability, cells, compared(cells, cosine=1.0)))
    assert (row.output_cv, row.cosine_mean, row.identical_summaries_frac) == (0.0, 1.0, 1.0)
    assert pd.isna(row.output_cv_high)
    assert pd.isna(row.cosine_low)
    assert "temperature 0: repeats are identical" in row.note
    assert "random weights: the volume is the cap's, not the model's" in row.note


def test_some_identical_summaries_are_counted():
    cells = repeats(texts=["a", "a", "a", "b", "b", *TEXTS[5:]])
    row = only_row(build(compaction_stability, cells))
    assert row.identical_summaries_frac == 0.5
    assert row.note == compaction_stability.NOT_COMPARED


def test_summaries_without_a_cosine_are_left_out_and_counted():
    cells = repeats()
    row = only_row(build(compaction_stability, cells, compared(cells, unknown={3})))
    assert (row.num_repeats, row.cosine_num_repeats) == (MIN_REPEATS, MIN_REPEATS - 1)
    assert row.cosine_mean == pytest.approx(0.5)
    assert row.note == f"1 of 10 repeats have no cosine: {NO_WORD}"


def test_similarities_of_other_repeats_are_refused():
    cells = repeats()
    with pytest.raises(ArtifactError, match="compare 9 repeats of an input that has 10"):
        build(compaction_stability, cells, compared(cells[:-1]))


def prompted(volumes, prompt="brief", target_frac=0.1, **changes):
    return [
        single(
            volume,
            study=Study.VOLUME_CONTROL,
            prompt=prompt,
            target_frac=target_frac,
            session_id=f"s{index}",
            **changes,
        )
        for index, volume in enumerate(volumes)
    ]


def test_errors_of_both_signs_cancel_in_the_mean_and_not_in_the_distance():
    row = only_row(build(compaction_volume_control, prompted([50, 150])))  # asked for 100
    assert row.output_over_input_mean_frac == pytest.approx(0.1)
    assert (row.output_over_input_min_frac, row.output_over_input_max_frac) == (0.05, 0.15)
    assert row.target_error_mean_frac == pytest.approx(0.0)
    assert row.target_absolute_error_mean_frac == pytest.approx(0.5)
    assert (row.target_frac, row.num_cells, row.target_error_num_clusters) == (0.1, 2, 2)
    assert row.output_cv == pytest.approx(math.sqrt(2) * 50 / 100)


def test_a_prompt_that_names_no_volume_has_no_error():
    row = only_row(build(compaction_volume_control, prompted([50], target_frac=None)))
    assert pd.isna(row.target_frac)
    assert pd.isna(row.target_error_mean_frac)
    assert pd.isna(row.output_cv)
    assert row.target_error_num_clusters == 0


def test_every_prompt_and_length_is_a_row():
    cells = [
        *prompted([10, 20]),
        *prompted([30, 40], prompt="detailed", target_frac=0.3),
        *prompted([30, 40], history_tokens=2048),
    ]
    table = build(compaction_volume_control, cells)
    assert list(zip(table.prompt, table.history_tokens, strict=True)) == [
        ("brief", 1024),
        ("detailed", 1024),
        ("brief", 2048),
    ]


@pytest.mark.parametrize(
    ("module", "study"),
    [
        (compaction_length_invariance, Study.LENGTH_INVARIANCE),
        (compaction_stability, Study.STABILITY),
        (compaction_volume_control, Study.VOLUME_CONTROL),
    ],
)
def test_a_table_takes_the_cells_of_its_own_study_and_single_compactions_only(module, study):
    others = [single(50, study=other) for other in Study if other is not study]
    assert build(module, others).empty
    double = loaded(record(compactions=(compaction(), compaction(index=1))), study=study)
    with pytest.raises(ArtifactError, match="2 compactions; it must hold exactly 1"):
        build(module, [double])


def arms_of(blocks_by_arm, **changes):
    """One length of the volume-control table, by arm and realised history blocks."""
    cells = []
    for (arm, size), blocks in blocks_by_arm.items():
        made = single(50, study=Study.VOLUME_CONTROL, arm=arm, block_size_tokens=size, **changes)
        done = made.record.compactions[0].model_copy(update={"block_tokens": blocks})
        cells.append(replace(made, record=made.record.model_copy(update={"compactions": (done,)})))
    return cells


def gates_of(cells):
    table = build(compaction_volume_control, cells)
    return list(zip(table.gate, table.same_blocks_as.fillna(""), strict=True))


def test_two_block_sizes_that_cut_a_history_alike_are_one_arm():
    blocks = {
        ("sequential", None): (500,),
        ("suffix_target", 256): (260, 240),
        ("target_block", 256): (260, 240),
        ("target_block", 512): (260, 240),
        ("target_block", 1024): (500,),
        ("target_block", 2048): (501,),
    }
    assert gates_of(arms_of(blocks)) == [
        ("ok", ""),
        ("ok", ""),  # another layout of the same history blocks is another arm
        ("ok", ""),
        ("same_blocks_as", "target_block B=256"),
        ("same_blocks_as", "sequential"),
        ("ok", ""),
    ]


def test_arms_are_held_against_those_of_their_own_prompt_length_and_session():
    alike = {("target_block", 512): (500,)}
    again = {("target_block", 1024): (500,)}
    apart = [{"prompt": "brief"}, {"history_tokens": 2048}, {"session_id": "s9"}]
    for changes in apart:
        cells = [*arms_of(alike), *arms_of(again, **changes)]
        assert {gate for gate, _ in gates_of(cells)} == {"ok"}, changes


@pytest.mark.parametrize(("num_cut", "gate"), [(1, "ok"), (2, "capped")])
def test_an_arm_of_which_more_than_a_twentieth_is_cut_off_is_capped(num_cut, gate):
    cells = [
        single(50, study=Study.VOLUME_CONTROL, session_id=f"s{index}", text=f"{index}")
        for index in range(20)
    ]
    cut = [
        single(50, study=Study.VOLUME_CONTROL, num_cut=1, session_id=f"s{index}", text=f"{index}")
        for index in range(num_cut)
    ]
    row = only_row(build(compaction_volume_control, [*cut, *cells[num_cut:]]))
    assert (row.length_finish_frac, row.gate) == (num_cut / 20, gate)


@pytest.mark.parametrize(
    ("texts", "gate"), [("abab", "ok"), ("aaba", "ok"), ("aaaaab", "not_diverse")]
)
def test_an_arm_of_stock_phrases_is_not_diverse(texts, gate):
    cells = [
        single(50, study=Study.LENGTH_INVARIANCE, session_id=f"s{index}", text=text)
        for index, text in enumerate(texts)
    ]
    row = only_row(build(compaction_length_invariance, cells))
    assert (row.distinct_summaries_frac, row.gate) == (len(set(texts)) / len(texts), gate)


def test_of_several_gates_the_one_that_is_hardest_to_mend_is_named():
    assert gate_of(set(Gate) - {Gate.OK}) is Gate.CANNOT_DO_TASK
    assert gate_of({Gate.TOO_FEW_STARTS, Gate.NOT_DIVERSE, Gate.CAPPED}) is Gate.CAPPED
    assert gate_of(set()) is Gate.OK
    assert set(PRECEDENCE) == set(Gate) - {Gate.OK}


def test_repeats_of_one_summary_are_not_diverse():
    cells = [single(50, study=Study.STABILITY, repeat=repeat, text="one") for repeat in range(3)]
    row = only_row(build(compaction_stability, cells))
    assert (row.distinct_summaries_frac, row.gate) == (pytest.approx(1 / 3), "not_diverse")

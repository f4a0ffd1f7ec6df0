"""Every figure draws what its table's own module makes of cells."""

import importlib

import pytest
from drawn import drawn_points, texts_of

from blockwise.compaction.records import AnswerContext
from blockwise.config.choices import Study
from blockwise.figures.registry import figures_of, load_figure
from blockwise.tables.inputs import TableInputs
from blockwise.tables.registry import TABLES, Family
from record_factory import answer, compaction, loaded, record, request

ARMS = (("sequential", None), ("target_block", 512), ("suffix_target", 512))
NATURAL = {"protocol": "single", "volume_mode": "natural"}


def cells_of(study, spec, arms=ARMS, **changes):
    labels = {name: changes.pop(name) for name in ("prompt", "target_frac") if name in changes}
    return [
        loaded(record(arm, size, spec=spec, **changes), study=study, **labels) for arm, size in arms
    ]


def recalled(study, **labels):
    asked = [
        answer(context=context, num_evidence_compactions=1)
        for context in (AnswerContext.COMPACTED, AnswerContext.TRUNCATION)
    ]
    closing = (compaction(closing=True),)
    spec = {"protocol": "deferred"}
    return cells_of(study, spec, compactions=closing, answers=asked, **labels)


def loads(study):
    bystanders = [
        request("bystander", worker_index=0, compaction_index=index) for index in (None, 0)
    ]
    workers = [request("worker", completion_tokens=256)]
    return cells_of(study, {"protocol": "shared"}, requests=[*workers, *bystanders])


def strategies(study):
    asked = tuple(
        answer(context=AnswerContext.STRATEGY, question_id=name, num_evidence_compactions=number)
        for name, number in (("q0", 1), ("q0", 2), ("q1", 1))
    )
    done = (compaction(), compaction(index=1, closing=True))
    recall = {"protocol": "deferred", "ask_after": [1, 2], "budget_tokens": 500}
    timed = {"protocol": "immediate", "budget_tokens": 500, "volume_mode": "natural"}
    cells = []
    for name in ("sequential", "rolling"):
        own = {"strategy": name, "asks_truncated": False}
        cells += cells_of(study, {**recall, **own}, ARMS[:1], compactions=done, answers=asked)
        cells += cells_of(study, {**timed, **own}, ARMS[:1])
    return cells


CELLS = {
    Study.END_TO_END: lambda study: cells_of(study, {}),
    Study.BLOCKING_SHARE: lambda study: cells_of(study, {}),
    Study.MATCHED_VOLUME: lambda study: cells_of(study, {}),
    Study.LAYOUTS: lambda study: cells_of(study, {"protocol": "single"}),
    Study.LENGTH_INVARIANCE: lambda study: cells_of(study, NATURAL),
    Study.STABILITY: lambda study: [
        cell for repeat in range(2) for cell in cells_of(study, NATURAL, repeat=repeat)
    ],
    Study.VOLUME_CONTROL: lambda study: [
        cell
        for prompt, target in (("concise", 0.02), ("detailed", None))
        for cell in cells_of(study, NATURAL, prompt=prompt, target_frac=target)
    ],
    Study.ACCURACY_VOLUME: recalled,
    Study.BLOCK_PROMPTS: lambda study: [
        cell
        for prompt in ("by content type", "detailed")
        for cell in recalled(study, prompt=prompt)[1:]
    ],
    Study.UNDER_LOAD: loads,
    Study.EAGER: lambda study: [
        *cells_of(study, {}),
        *cells_of(study, {"is_eager": True}, ARMS[2:]),
    ],
    Study.STRATEGIES: strategies,
}


def test_every_study_has_a_figure():
    assert set(CELLS) == set(Study)
    figures = figures_of(Family.COMPACTION)
    assert {study.value for study in Study} <= set(figures)
    assert {load_figure(name).TABLE for name in figures} == {study.value for study in Study}


@pytest.mark.parametrize("study", CELLS)
def test_the_table_of_some_cells_is_drawn(study):
    module = importlib.import_module(TABLES[study.value])
    table = module.build(TableInputs(cells=CELLS[study](study)))
    figure = load_figure(study.value).draw(table)
    points, _ = drawn_points(figure)
    assert len(points) >= table["arm"].nunique()
    assert "random weights" in texts_of(figure)

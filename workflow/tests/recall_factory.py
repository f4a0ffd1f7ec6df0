"""Made-up recall cells: the same questions asked on what an arm compacted, and on more or less."""

from blockwise.compaction.records import AnswerContext
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.tables.compaction import compaction_accuracy_volume, compaction_block_prompts
from blockwise.tables.inputs import TableInputs
from record_factory import answer, compaction, loaded, record


def asked(context, *scores, **changes):
    """One answer a score, to questions q0, q1, ...; evidence compacted once where it can be."""
    compacted = context in {"compacted", "truncation"}
    values = {
        "context": AnswerContext(context),
        "exact_match": None,
        "num_evidence_compactions": int(compacted),
    }
    return tuple(
        answer(question_id=f"q{number}", f1=score, **{**values, **changes})
        for number, score in enumerate(scores)
    )


def recall_cell(answers, arm="target_block", size=512, **changes):
    """A recall cell; labels of the batch and parts of the record in one."""
    names = ("session_id", "seed", "repeat", "compactions", "requests")
    parts = {name: changes.pop(name) for name in names if name in changes}
    parts.setdefault("compactions", (compaction(closing=True, history_after_tokens=300),))
    spec = {"protocol": "deferred", **changes.pop("spec", {})}
    cell = record(arm, size, answers=answers, spec=spec, **parts)
    labels = {"study": Study.ACCURACY_VOLUME, "experiment": "recall", "weights": Weights.PUBLISHED}
    return loaded(cell, **{**labels, **changes})


def reference(context, *scores, **changes):
    return recall_cell(
        asked(context, *scores),
        context,
        None,
        compactions=(),
        requests=(),
        spec={"tau_tokens": None, "asks_truncated": False},
        **{**changes, "prompt": ""},
    )


def build(*cells, omitted=(), judgements=()):
    inputs = TableInputs(cells=cells, omitted=omitted, judgements=judgements)
    return compaction_accuracy_volume.build(inputs)


def row_of(table, context="compacted", **values):
    for name, value in {"answer_context": context, **values}.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def prompts_table(*cells):
    return compaction_block_prompts.build(TableInputs(cells=cells))


def prompt_cell(prompt, *scores, text="one", **changes):
    return recall_cell(
        asked("compacted", *scores),
        study=Study.BLOCK_PROMPTS,
        prompt=prompt,
        spec={"prompt": text, **changes.pop("spec", {})},
        **changes,
    )

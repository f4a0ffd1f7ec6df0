"""A batch of any number of cells, finished but never played: its plan is real, its records made up.

Half of the cells are timing cells in blocks of five arms, half recall cells in files of their own;
each has five requests and a few hundred characters of text a request, as a small real one has.
"""

import json
from pathlib import Path

from blockwise.artifacts import digest, write_model
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.cells import Unit
from blockwise.compaction.plan import BatchPlan, plan_batch
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.records import AnswerContext, TimingBlock
from blockwise.compaction.store import CellStore
from blockwise.config.profile import Profile
from blockwise.data.documents import Document, Question, Session, SessionSet
from blockwise.models.prepared_model import PreparedModel
from compaction.doubles import CharRenderer
from record_factory import answer, engine_card, record, request

NUM_SESSIONS = 20
CELLS_PER_SEED = 12 * NUM_SESSIONS  # five timed arms; five recall arms, and two without compaction
REQUESTS_PER_CELL = 5
TEXT = "Mira lives in Tarvos and keeps a ferry there. " * 8
ARMS = {"layouts": ["target_block", "suffix_target"], "block_sizes_tokens": [512, 1024]}
BACKBONE, DATASET = "double", "d"
MODEL = PreparedModel(
    backbone=BACKBONE,
    source="random",
    path="x",
    revision=None,
    tokenizer_path="x",
    digest="m",
    num_parameters=1,
)


def make_profile(num_seeds: int) -> Profile:
    """Two experiments with as many seeds; `CELLS_PER_SEED` cells each."""
    seeds = list(range(num_seeds))
    return Profile.model_validate(
        {
            "profile": "t",
            "backbones": {
                BACKBONE: {
                    "model": {"source": "random"},
                    "architecture": "dense",
                    "reasoning": False,
                    "num_parameters": 1e6,
                    "context_window_tokens": 16384,
                    "engine": {"kind": "vllm"},
                }
            },
            "datasets": {
                DATASET: {
                    "format": "hotpotqa",
                    "source": {"kind": "synthetic", "num_rows": 400},
                    "sessions": {"num_sessions": NUM_SESSIONS, "target_tokens": 1000},
                }
            },
            "experiments": {
                "end_to_end": {
                    "study": "compaction_end_to_end",
                    "tau_tokens": [4096],
                    "volume": {"mode": "forced", "total_tokens": 256},
                    "seeds": seeds,
                    **ARMS,
                },
                "accuracy_volume": {
                    "study": "compaction_accuracy_volume",
                    "tau_tokens": [4096],
                    "volume": {
                        "mode": "natural",
                        "sequential_max_tokens": 256,
                        "worker_max_tokens": 128,
                    },
                    "references": ["closed_book", "full_history"],
                    "seeds": seeds,
                    **ARMS,
                },
            },
        }
    )


def make_sessions() -> SessionSet:
    """Sessions of four short documents with a question each."""

    def document(session: int, number: int) -> Document:
        name = f"s{session}d{number}"
        question = Question(
            id=name, text="Where?", answer="Tarvos", category="bridge", evidence=(name,)
        )
        return Document(id=name, cluster=name, text=TEXT, questions=(question,))

    sessions = tuple(
        Session(
            id=f"{DATASET}-{number:03d}",
            documents=tuple(document(number, index) for index in range(4)),
            num_tokens=1000,
        )
        for number in range(NUM_SESSIONS)
    )
    return SessionSet(
        dataset=DATASET,
        format="hotpotqa",
        backbone=BACKBONE,
        content_digest="c",
        num_skipped_rows=0,
        sessions=sessions,
    )


def make_plan(num_seeds: int, prompts_folder: Path) -> BatchPlan:
    """The plan of the whole batch."""
    return plan_batch(
        make_profile(num_seeds),
        BACKBONE,
        make_sessions(),
        MODEL,
        renderer=CharRenderer(),
        prompts_folder=prompts_folder,
    )


def make_job(plan: BatchPlan, store: CellStore) -> BatchJob:
    """The job of the batch."""
    return BatchJob(plan, make_profile(1).backbones[BACKBONE], MODEL, store, "config")


def fill_store(plan: BatchPlan, folder: Path) -> int:
    """Write every unit of the plan as its job would have left it; return the number of cells.

    Without the fsync of each file, which would take most of the time and change nothing here.
    """
    store = CellStore(folder, print)
    num_cells = 0
    for unit in plan.units:
        content = _content_of(unit).model_dump(mode="json")
        path = folder / store.relative_path(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"digest": digest(content), "record": content}))
        num_cells += len(unit.cells)
    store.save_engine_card(engine_card(backbone=BACKBONE))
    return num_cells


def write_batch(plan: BatchPlan, folder: Path, path: Path) -> None:
    """The batch file that the job ends with."""
    job = make_job(plan, CellStore(folder, print))
    write_model(path, job.batch(make_sessions(), "made up"))


def _content_of(unit: Unit):
    records = [_record(unit, position, spec) for position, spec in enumerate(unit.cells)]
    if not unit.is_timing_block:
        return records[0]
    return TimingBlock(id=unit.key, engine_card_id="card", cells=tuple(records))


def _record(unit: Unit, position: int, spec: CellSpec):
    is_timed = unit.is_timing_block
    role, workers = ("agent", 2) if not spec.is_reference else ("question", 0)
    requests = [request(role, text=TEXT) for _ in range(REQUESTS_PER_CELL - workers)]
    requests += [request("worker", text=TEXT, worker_index=index) for index in range(workers)]
    context = AnswerContext.RUNNING if is_timed else AnswerContext.COMPACTED
    if spec.is_reference:
        context = AnswerContext(spec.layout)
    answers = [
        answer(question_id=f"q{n}", context=context, f1=(spec.seed + n) % 3 / 2) for n in range(4)
    ]
    changes = {"compactions": ()} if spec.is_reference else {}
    made = record(
        block_size_tokens=spec.block_size_tokens,
        wall_s=10.0 + spec.seed % 7 + position,
        requests=tuple(requests),
        answers=tuple(answers),
        **changes,
    )
    return made.model_copy(
        update={
            "cell_key": spec.key,
            "spec": spec,
            "timing_block_id": unit.key if is_timed else None,
            "position_in_block": position if is_timed else None,
            "timing_valid": is_timed,
            "num_preemptions": 0 if is_timed else None,
            "client_cpu_s": 0.125 if is_timed else None,
        }
    )

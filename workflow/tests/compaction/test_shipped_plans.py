"""Plans of the shipped profiles: which of their cells are one cell, and which share a block."""

import contextlib
from collections import defaultdict
from operator import attrgetter

import pytest

from blockwise.compaction.cell_spec import ARM_INGREDIENTS
from blockwise.estimate.plans import Plans
from blockwise.run.pipeline import PROMPTS_FOLDER, Pipeline


@pytest.fixture(
    scope="module", params=["config", "small", "words", "paper", "gpu", "architectures"]
)
def plans(request, project_folder, tmp_path_factory):
    """The plan of every batch of one profile, on documents of the published size."""
    with contextlib.chdir(project_folder):
        names = dict.fromkeys(["config", request.param])
        pipeline = Pipeline([project_folder / "config" / f"{name}.yaml" for name in names], {})
        known = Plans(pipeline.profile, tmp_path_factory.mktemp("runs"), PROMPTS_FOLDER)
        return [known.of(backbone, dataset).plan for backbone, dataset in pipeline.batches()]


def test_cells_are_one_where_nothing_differs_and_only_there(plans):
    for plan in plans:
        by_key, by_experiment = {}, defaultdict(list)
        for one in plan.selected:
            assert by_key.setdefault(one.spec.key, one.spec) == one.spec
            by_experiment[one.experiment].append(one.spec.key)
        for name, keys in by_experiment.items():
            assert len({*keys}) == len(keys), f"{name} plays a cell twice"


def test_a_timing_block_holds_each_arm_of_one_place_once(plans):
    arm = attrgetter(*sorted(ARM_INGREDIENTS - {"code_digest"}))
    place = attrgetter(
        "protocol", "session_id", "seed", "repeat", "server_start", "tau_tokens", "history_tokens",
        "num_bystanders", "tool_wait_s", "prompt",
    )  # fmt: skip
    for plan in plans:
        for unit in plan.units:
            assert len({arm(one) for one in unit.cells}) == len(unit.cells)
            assert len({place(one) for one in unit.cells}) == 1

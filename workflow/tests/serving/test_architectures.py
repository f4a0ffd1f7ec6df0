"""The paper's four architectures, shrunken: each plays the study on a server, or says why not."""

import json

import pytest

from blockwise.compaction.fit import check_sessions_fit
from blockwise.compaction.plan import plan_batch
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.sessions import build_sessions
from blockwise.compaction.store import CellStore
from blockwise.config.backbones import RequestForm
from blockwise.config.load import load_profile
from blockwise.data.prepare import configured_dataset, prepare_documents
from blockwise.errors import EngineError
from blockwise.models.prepare import prepare_model
from blockwise.models.renderer import Renderer

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

DATASET = "hotpotqa"
HUGGING_FACE = {"llama": "LlamaForCausalLM", "gpt-oss": "GptOssForCausalLM"}
SHRUNKEN = ("llama-3.1-8b", "gpt-oss-20b", "llama-3.3-70b", "gpt-oss-120b")


@pytest.fixture
def job_of(project_folder, tmp_path):
    files = [project_folder / f"config/{name}.yaml" for name in ("config", "architectures")]
    profile = load_profile(files)
    prompts = project_folder / "config" / "prompts"

    def job(name, **request):
        backbone = profile.backbones[f"{name}-shrunken"]
        defaults = backbone.request.model_copy(update=request)
        backbone = backbone.model_copy(update={"request": defaults})
        model = prepare_model(name, backbone, tmp_path / "model")
        renderer = Renderer(model.tokenizer_path)
        dataset = configured_dataset(profile, DATASET)
        sessions = build_sessions(
            prepare_documents(DATASET, dataset, tmp_path),
            dataset.sessions,
            renderer.count_text,
            name,
            backbone.context_window_tokens,
        )
        plan = plan_batch(
            profile, f"{name}-shrunken", sessions, model, renderer=renderer, prompts_folder=prompts
        )
        cells = ((cell.experiment, cell.spec) for cell in plan.selected)
        check_sessions_fit(cells, plan.sessions, renderer)
        store = CellStore(tmp_path / "cells", print)
        batch_job = BatchJob(plan, backbone, model, store, "digest")
        batch_job.play_missing(renderer, tmp_path / "server.log")
        batch = batch_job.batch(sessions, backbone.caption)
        paths = {store.folder / cell.record_path for cell in batch.selected}
        return batch, [json.loads(path.read_text())["record"] for path in paths]

    return job


@pytest.mark.parametrize("name", SHRUNKEN)
def test_a_shrunken_architecture_plays_the_whole_study(job_of, tmp_path, name):
    batch, stored = job_of(name)
    built = json.loads((tmp_path / "model" / "config.json").read_text())["architectures"]
    assert built == [HUGGING_FACE[name.rsplit("-", 1 if name[0] == "g" else 2)[0]]]
    records = [record for one in stored for record in one.get("cells", [one])]
    assert {cell.study for cell in batch.selected} == {
        "compaction_end_to_end",
        "compaction_layouts",
        "compaction_accuracy_volume",
    }
    assert {"sequential", "target_block", "suffix_full", "closed_book", "full_history"} <= {
        record["spec"]["layout"] for record in records
    }
    for record in records:
        if record["timing_block_id"] is None:
            continue
        assert record["timing_valid"], record["timing_invalid_reasons"]
        (volume,) = {one["output_tokens"] for one in record["compactions"]}
        assert volume == 64, "forced, whatever the architecture"
    (card,) = batch.engine_cards
    assert (card.prefix_caching, card.prefix_stable) == (True, True)
    has_windows = name.startswith("gpt-oss")  # see workflow/docs/architectures.md
    assert card.cut_history_cached != has_windows
    assert batch.caption.endswith("proves it loads, measures nothing")
    print(f"{name}: {len(records)} cells", card.model_dump_json())


def test_gpt_oss_as_chat_is_refused_because_vllm_renders_it_with_a_vocabulary_of_its_own(job_of):
    with pytest.raises(EngineError, match="out of vocabulary") as refusal:
        job_of("gpt-oss-20b", form=RequestForm.CHAT)
    print(refusal.value)

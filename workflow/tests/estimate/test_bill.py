"""The bill: prices, sizes, assumed sessions, the training study, and what is printed."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

import published_model
from blockwise.compaction.sessions import build_sessions
from blockwise.config.datasets import Dataset
from blockwise.config.load import load_profile
from blockwise.data.dataset_format import load_format
from blockwise.errors import DatasetError
from blockwise.estimate import hardware
from blockwise.estimate.bill import Bill
from blockwise.estimate.compaction_bill import Notes
from blockwise.estimate.earlier import EarlierRun, load_earlier
from blockwise.estimate.hardware import cpu, gpu, memory_problems, model_size
from blockwise.estimate.report import print_bill, write_bill
from blockwise.estimate.sessions import assumed_documents
from blockwise.estimate.speeds import Speed, cache_of, speed_of
from blockwise.estimate.training_bill import TrainingBill
from blockwise.estimate.walk import NaturalVolume, Wave
from blockwise.models.assumed_renderer import AssumedRenderer

SPEED = Speed(step_s=1.0, step_request_s=0.1, step_context_token_s=0.0, prefill_token_s=0.01,
              prefill_context_token_s=0.0, request_s=0.5, startup_s=0.0, source="")  # fmt: skip


def test_a_step_is_shared_by_the_requests_that_run_and_prefills_are_not():
    together = Wave("worker", 2, 2, 200, 200, 20)
    apart = Wave("worker", 2, 1, 200, 200, 20)
    assert SPEED.wave_s(together) == pytest.approx(10 * (1.0 + 2 * 0.1) + 2.0 + 0.5)
    assert SPEED.wave_s(apart) == pytest.approx(20 * (1.0 + 0.1) + 2.0 + 2 * 0.5)
    four = SPEED.wave_s(together, beside=4)
    assert four == pytest.approx(10 * (1.0 + 8 * 0.1) + 4 * 2.0 + 0.5)
    assert SPEED.wave_s(together, others=3) == pytest.approx(10 * (1.0 + 5 * 0.1) + 2.0 + 0.5)
    assert SPEED.wave_s(Wave("question", 0, 1, 0, 0, 0)) == 0.0


def test_assumed_sessions_hold_target_tokens_in_any_tokenizer():
    longest = {"hotpotqa": 1_500, "locomo": 1_500, "longmemeval": 3_000}  # a document, about
    for format_, count in (("hotpotqa", 3), ("locomo", 12), ("longmemeval", 3)):
        dataset = Dataset.model_validate(
            {
                "format": format_,
                "source": {"kind": "hub", "id": "a/b"},
                "sessions": {"num_sessions": count, "target_tokens": 20_000},
            }
        )
        for count_text in (AssumedRenderer().count_text, len, lambda text: len(text.split())):
            documents = assumed_documents("d", dataset, count_text)
            sessions = build_sessions(
                documents, dataset.sessions, count_text, "b", 100_000
            ).sessions
            assert len(sessions) == count
            end = 20_000 + longest[format_]
            assert all(20_000 <= one.num_tokens < end for one in sessions)


def test_assumed_questions_are_as_many_as_usual():
    def num_questions(format_, target_tokens):
        plan = {"num_sessions": 1, "target_tokens": target_tokens}
        source = {"kind": "hub", "id": "a/b"}
        dataset = Dataset(format=format_, source=source, sessions=plan)
        count_text = AssumedRenderer().count_text
        documents = assumed_documents("d", dataset, count_text)
        (session,) = build_sessions(documents, dataset.sessions, count_text, "b", 10**6).sessions
        return sum(len(document.questions) for document in session.documents)

    assert num_questions("hotpotqa", 12_000) == pytest.approx(10, abs=1)
    assert num_questions("locomo", 7_000) == pytest.approx(50, abs=12)
    assert num_questions("longmemeval", 115_000) == 1  # a haystack of 48 chat sessions


def test_a_format_of_no_usual_size_is_estimated_from_its_documents_alone(monkeypatch):
    unknown = replace(load_format("locomo"), usual=None)
    monkeypatch.setattr("blockwise.estimate.sessions.load_format", lambda name: unknown)
    plan = {"num_sessions": 1, "target_tokens": 1000}
    dataset = Dataset(format="locomo", source={"kind": "hub", "id": "a/b"}, sessions=plan)
    with pytest.raises(DatasetError, match=r"d is not on .* locomo declares no usual"):
        assumed_documents("d", dataset, len)


def test_weights_and_a_window_are_held_against_the_device(project_folder):
    files = [project_folder / f"config/{name}.yaml" for name in ("config", "paper")]
    backbone = load_profile(files).backbones["llama-3.1-8b"]
    size = model_size(backbone)
    assert memory_problems("b", backbone, size, gpu(80, 989, 3350)) == []
    (problem,) = memory_problems("b", backbone, size, gpu(24, 165, 1000))
    assert "weights take 16.1 GB" in problem
    assert "raise gpus" in problem


def test_the_snapshot_prices_each_backbone_by_its_own_cards(project_folder):
    earlier = load_earlier(project_folder / "results/reference")
    timed = set(earlier.cells.loc[earlier.cells["timing_block_id"].notna(), "backbone"])
    assert timed
    for name in earlier.cards["backbone"].unique():
        prices, card = earlier.prices(name), earlier.card(name)
        alone_s = prices["step_s"] + prices["step_request_s"]
        assert 0.5 < alone_s * card["decode_1_tokens_per_s"] < 2.0
        # A card alone does not say what a prompt costs.
        assert ("prefill_token_s" in prices) == (name in timed)
        assert 0 <= prices.get("prefill_token_s", 0.0) < 0.01
    assert earlier.prices("nobody") == {}


def test_what_nobody_measured_is_assumed_and_said(project_folder):
    profile = load_profile([project_folder / "config/config.yaml"])
    name, backbone = next(iter(profile.backbones.items()))
    nothing = load_earlier(project_folder / "nowhere")
    speed = speed_of(name, backbone, model_size(backbone), cpu(), nothing)
    assert speed.source.startswith("assumed: a core of this machine's CPU")
    assert nothing.volumes(name).mean == NaturalVolume()
    assert cache_of(name, backbone, nothing).finds_cut_history


def test_a_server_computes_on_all_cores_but_those_that_vllm_keeps(project_folder, monkeypatch):
    monkeypatch.setattr(hardware.psutil, "cpu_count", lambda logical: 4)
    files = [project_folder / "config" / name for name in ("config.yaml", "small.yaml")]
    backbones = load_profile(files).backbones
    assert hardware.num_devices(backbones["smollm2-135m"]) == 3
    assert hardware.num_devices(backbones["qwen2.5-coder-1.5b"]) == 4  # it sets the variable


def test_a_concise_summary_is_shorter_than_a_detailed_one():
    spent = {("brief", "sequential", ""): (16, 32), ("full", "sequential", ""): (64, 48),
             ("full", "independent", 256): (32, 32), ("", "closed_book", ""): ()}  # fmt: skip
    cells, requests = [], []
    for number, ((prompt, arm, size), tokens) in enumerate(spent.items()):
        cells.append({"cell_key": number, "prompt": prompt or None, "volume_mode": "natural",
                      "num_bystanders": 0})  # fmt: skip
        shared = {"cell_key": number, "backbone": "b", "dataset": "d", "arm": arm,
                  "block_size_tokens": size or None, "max_tokens": 64}  # fmt: skip
        requests += [
            {**shared, "role": "worker", "completion_tokens": one, "thinking_tokens": one // 4}
            for one in tokens
        ]
        requests.append({**shared, "role": "question", "completion_tokens": 8 * (1 + number),
                         "thinking_tokens": 0})  # fmt: skip
    empty = pd.DataFrame()
    earlier = EarlierRun("r", empty, pd.DataFrame(cells), pd.DataFrame(requests), empty)
    volumes = earlier.volumes("b")

    def of(dataset, prompt, layout, size=None):
        spec = SimpleNamespace(strategy=None, layout=layout, block_size_tokens=size)
        return volumes.of(dataset, SimpleNamespace(prompt=prompt, spec=spec))

    mean = NaturalVolume(3.5 / 6, 0.3125, 0.75)
    assert volumes.mean == mean
    assert of("d", "brief", "sequential") == NaturalVolume(0.375, 0.125, 0.75)
    assert of("d", "full", "sequential") == NaturalVolume(0.875, 0.25, 0.75)
    assert of("d", "full", "independent", 256) == NaturalVolume(0.5, 0.375, 0.75)
    assert of("d", "", "closed_book") == NaturalVolume(mean.worker_frac, 0.5, 0.75)
    assert of("d", "full", "suffix_full", 256) == mean
    assert of("another", "full", "sequential") == mean


def test_training_runs_steps_and_hours_follow_from_the_study(project_folder):
    study = load_profile([project_folder / "config/config.yaml"]).mxfp4
    earlier = load_earlier(project_folder / "results/reference")
    lines = {line.experiment: line for line in TrainingBill(study, earlier, cpu(), Notes()).lines()}
    for name, runs in earlier.training.groupby("experiment"):
        assert lines[name].num_cells == len(runs)
        assert lines[name].num_steps == runs["num_steps"].sum()
        assert lines[name].train_tokens == runs["train_tokens"].sum()
        assert lines[name].wall_h * 3600 > runs["train_s"].sum()
    assert set(earlier.training["num_parameters"]) == {
        TrainingBill(study, earlier, cpu(), Notes()).num_parameters
    }


def test_measurements_on_a_published_model_cost_what_their_passes_and_products_do(tmp_path):
    study = published_model.study(tmp_path)
    nothing = load_earlier(tmp_path / "nowhere")

    def line(name, **changes):
        entry = study.experiments[name].model_copy(update=changes)
        one = study.model_copy(update={"experiments": {name: entry}})
        (only,) = TrainingBill(one, nothing, cpu(), Notes()).lines()
        return only

    tokens = 32 * 5e4
    errors = line("errors")  # F+D+W and fp8 have three GEMMs, the others one, float32 three
    assert errors.flops == 3 * (2 * 4 * tokens + (3 + 3 + 1 + 1 + 3) * 2 * tokens)
    assert (errors.num_jobs, line("descent").num_jobs) == (2, 2)
    assert line("errors", num_batches=6).flops == 2 * errors.flops
    assert line("descent", num_micro_batches=30).wall_h > line("descent").wall_h > 0
    assert line("descent", arms=["W"]).flops < line("descent").flops


def test_a_bill_is_printed_and_written(tmp_path, capsys, project_folder):
    study = load_profile([project_folder / "config/config.yaml"]).mxfp4
    earlier = load_earlier(project_folder / "nowhere")
    training = TrainingBill(study, earlier, cpu(), Notes())
    bill = Bill(profile="p", lines=tuple(training.lines()), disk=tuple(training.disk()),
                warnings=("too [big]",), assumptions=())  # fmt: skip
    print_bill(bill)
    said = capsys.readouterr().out
    assert "mxfp4_ladder" in said
    assert "too [big]" in said
    write_bill(bill, tmp_path / "bill.json", tmp_path / "bill.csv")
    assert Bill.model_validate_json((tmp_path / "bill.json").read_text()) == bill
    assert len((tmp_path / "bill.csv").read_text().splitlines()) == len(bill.lines) + 1

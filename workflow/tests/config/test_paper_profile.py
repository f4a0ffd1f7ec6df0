"""The paper profile against what is known of the papers."""

from fnmatch import fnmatch

import pytest

from blockwise.config.choices import Boundary, Study
from blockwise.config.load import load_profile

OURS = {Study.EAGER, Study.STRATEGIES}
"""Studies that the paper has not: they have their own boundary, and run where they are cheapest."""


@pytest.fixture(scope="module")
def paper(project_folder):
    folder = project_folder / "config"
    return load_profile([folder / "config.yaml", folder / "paper.yaml"])


def test_every_backbone_has_the_paper_s_window_and_says_how_it_is_served(paper):
    assert len(paper.backbones) == 4
    for backbone in paper.backbones.values():
        flags = backbone.engine.flags()
        assert backbone.context_window_tokens == 128 * 1024
        assert flags["enable-prefix-caching"] is flags["enable-chunked-prefill"] is True
        assert flags["tensor-parallel-size"] == backbone.gpus
        assert ("reasoning-parser" in flags) == backbone.reasoning
        assert backbone.request.temperature > 0  # repeats of one input differ


def test_the_grid_is_the_paper_s(paper):
    swept = set()
    for experiment in paper.experiments.values():
        swept |= set(experiment.history_limits_tokens)
        if experiment.study in OURS:
            continue
        if experiment.study not in {Study.LENGTH_INVARIANCE, Study.BLOCKING_SHARE}:
            assert experiment.boundary is Boundary.TOKEN
            assert experiment.verbatim.last_turns == 0
        assert experiment.backbones is experiment.datasets is None
    assert min(swept) == 2048
    assert max(swept) == 96 * 1024
    share = paper.experiments["compaction_blocking_share"]
    assert (min(share.tau_tokens), max(share.tau_tokens)) == (16 * 1024, 96 * 1024)
    for name in ("compaction_end_to_end", "compaction_matched_volume"):
        assert paper.experiments[name].block_sizes_tokens == [2048, 4096, 8192, 16384]


def test_the_corpus_is_the_last_quarter_of_the_shards_and_the_target_mlperf_s(paper):
    names = [f"en/c4-train.{shard:05d}-of-01024.json.gz" for shard in range(1024)]
    patterns = paper.mxfp4.corpus.train_files
    read = [number for number, name in enumerate(names) if any(map(fnmatch, [name] * 4, patterns))]
    assert read == list(range(768, 1024))
    ladder = paper.mxfp4.experiments["mxfp4_ladder"]
    assert (ladder.target_loss, ladder.target_step) == (3.3, None)
    training = ladder.training
    assert training.evaluate_every_steps * training.batch_sequences == 12288
    assert (
        training.num_steps * training.batch_sequences * 8192 < paper.mxfp4.corpus.max_train_tokens
    )

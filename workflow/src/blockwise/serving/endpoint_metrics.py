"""Counters of a vLLM server, read from its Prometheus page.

A timing cell during which requests were preempted or the cache overflowed is invalid; the
counters before and after it tell.
"""

from collections import defaultdict
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

PREEMPTIONS = "vllm:num_preemptions_total"

Samples = defaultdict[str, list[tuple[dict[str, str], float]]]
"""Labels and value of each sample, by the sample's name."""


@dataclass(frozen=True)
class EngineMetrics:
    """Counters since the server's start, and the size of its KV cache."""

    num_preemptions: int
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    kv_cache_tokens: int | None  # None: the server does not say
    kv_block_tokens: int | None


def parse_metrics(page: str) -> EngineMetrics:
    """Read the counters; several engine cores behind one server are added up.

    Raises:
        ValueError: it is no Prometheus page.
    """
    samples = _samples(page)
    cache_configs = _cache_configs(samples)
    kv_cache_tokens = sum(num_kv_blocks * tokens for num_kv_blocks, tokens in cache_configs)
    return EngineMetrics(
        num_preemptions=_total(samples, PREEMPTIONS),
        prefix_cache_queries_tokens=_total(samples, "vllm:prefix_cache_queries_total"),
        prefix_cache_hits_tokens=_total(samples, "vllm:prefix_cache_hits_total"),
        kv_cache_tokens=kv_cache_tokens if cache_configs else None,
        kv_block_tokens=cache_configs[0][1] if cache_configs else None,
    )


def _samples(page: str) -> Samples:
    samples: Samples = defaultdict(list)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return samples


def _total(samples: Samples, name: str) -> int:
    return round(sum(value for _, value in samples[name]))


def _cache_configs(samples: Samples) -> list[tuple[int, int]]:
    """(KV blocks, tokens a KV block) of each engine core that names both."""
    configs = []
    for labels, _ in samples["vllm:cache_config_info"]:
        num_kv_blocks, kv_block_tokens = labels.get("num_gpu_blocks"), labels.get("block_size")
        if num_kv_blocks and kv_block_tokens and (num_kv_blocks + kv_block_tokens).isdigit():
            configs.append((int(num_kv_blocks), int(kv_block_tokens)))
    return configs

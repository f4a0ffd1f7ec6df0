"""Counters of a vLLM server, read from its Prometheus page.

A timing cell during which requests were preempted or the cache overflowed is invalid; the
counters before and after it tell.
"""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

PREEMPTIONS = "vllm:num_preemptions_total"


@dataclass(frozen=True)
class EngineMetrics:
    """Counters since the server's start, and the size of its KV cache."""

    num_preemptions: int
    prefix_cache_queries_tokens: int
    prefix_cache_hits_tokens: int
    kv_cache_tokens: int | None  # None: the server does not say
    kv_block_tokens: int | None


def parse_metrics(page: str) -> EngineMetrics:
    """Read the counters; several engine cores behind one server are added up."""
    return EngineMetrics(
        num_preemptions=_total(page, PREEMPTIONS),
        prefix_cache_queries_tokens=_total(page, "vllm:prefix_cache_queries_total"),
        prefix_cache_hits_tokens=_total(page, "vllm:prefix_cache_hits_total"),
        kv_cache_tokens=_kv_cache_tokens(page),
        kv_block_tokens=_kv_block_tokens(page),
    )


def _samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    ]


def _total(page: str, name: str) -> int:
    return round(sum(value for _, value in _samples(page, name)))


def _cache_configs(page: str) -> list[tuple[int, int]]:
    """(KV blocks, tokens a KV block) of each engine core that names both."""
    configs = []
    for labels, _ in _samples(page, "vllm:cache_config_info"):
        num_kv_blocks, kv_block_tokens = labels.get("num_gpu_blocks"), labels.get("block_size")
        if num_kv_blocks and kv_block_tokens and (num_kv_blocks + kv_block_tokens).isdigit():
            configs.append((int(num_kv_blocks), int(kv_block_tokens)))
    return configs


def _kv_cache_tokens(page: str) -> int | None:
    configs = _cache_configs(page)
    return sum(num_kv_blocks * tokens for num_kv_blocks, tokens in configs) if configs else None


def _kv_block_tokens(page: str) -> int | None:
    configs = _cache_configs(page)
    return configs[0][1] if configs else None

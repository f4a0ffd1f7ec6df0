"""Benchmarks: the speed that the project promises, as ratios from interleaved runs."""

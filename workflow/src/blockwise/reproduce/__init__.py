"""A run from end to end, as a person sees it: one bar, failures in words, a stop that keeps all."""

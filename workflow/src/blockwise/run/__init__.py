"""A run of the workflow: what the Snakefile asks, what stands before it, and what holds it."""

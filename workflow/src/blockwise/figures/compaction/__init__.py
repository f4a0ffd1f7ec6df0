"""Figures of the compaction study, a module each, called as the figure is."""

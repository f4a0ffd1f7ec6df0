"""Figures: one pure drawing a module, from tables alone; the statistics are in the tables."""

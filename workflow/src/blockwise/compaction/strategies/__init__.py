"""Strategies: what is left of a history when it is due, a module each, called as configured."""

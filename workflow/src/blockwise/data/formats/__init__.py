"""Formats: the official schemas that are read, a module each, called as a configuration does."""

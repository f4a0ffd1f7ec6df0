"""Adapters: the compactor of messages as a part of agent frameworks, one module a framework."""

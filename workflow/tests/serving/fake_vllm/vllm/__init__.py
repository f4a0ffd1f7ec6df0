"""Stands in for vLLM where a test starts a server (see api_server.py)."""

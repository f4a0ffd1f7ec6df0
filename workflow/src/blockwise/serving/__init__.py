"""Serving: backbones, managed servers, the client, the probe."""

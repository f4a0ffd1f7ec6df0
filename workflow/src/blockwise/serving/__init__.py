"""Serving: managed servers, their devices, the client, the probe."""

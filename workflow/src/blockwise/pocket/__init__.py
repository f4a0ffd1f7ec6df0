"""Pocket backbones: tiny models trained here on the synthetic language, and what they learn."""

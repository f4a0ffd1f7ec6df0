"""Datasets: official files, hub or synthetic rows -> documents -> sessions."""

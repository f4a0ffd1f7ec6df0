"""The HTML report: pages with the claims and the tables, and captions of the figures."""

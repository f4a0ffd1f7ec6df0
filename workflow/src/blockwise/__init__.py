"""blockwise: reproducible experiments on context compaction and MXFP4 training.

One idea: a result is a pure function of (cell, code, environment, seed), and a reader
can trace any plotted point back to all four.
"""

__version__ = "0.2.0"

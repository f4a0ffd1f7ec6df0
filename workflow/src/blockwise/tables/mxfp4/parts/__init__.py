"""What tables of the MXFP4 study share: trainings, GEMM errors, spreads, reported numbers."""

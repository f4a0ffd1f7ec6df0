"""The claims ledger: what a run says of each claim, of the papers and of ours."""

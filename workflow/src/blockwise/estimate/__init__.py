"""What a run will cost, before it is paid for: its cells played without a server."""

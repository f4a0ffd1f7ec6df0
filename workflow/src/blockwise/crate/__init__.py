"""A finished run as a Workflow Run RO-Crate: a folder that says of itself what it holds."""

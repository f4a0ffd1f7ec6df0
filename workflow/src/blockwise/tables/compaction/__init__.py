"""Tables of the compaction study, a module each, called as the table is."""

"""Context compaction: histories, layouts, the compactor, the agent, and their cells."""

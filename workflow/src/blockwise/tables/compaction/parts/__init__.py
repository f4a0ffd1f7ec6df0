"""What tables of the compaction study share: loading, settings, gates, scores and volumes."""

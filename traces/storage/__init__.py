"""Keeping and finding the record: segments, compaction, deletion, and the store that answers questions."""

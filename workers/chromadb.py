"""Queue ``chromadb`` and its host-bound ones: the remedies of ChromaDB targets."""

from __future__ import annotations

from workers.task import strategy_task

query_retry = strategy_task("chromadb", "query_retry")
collection_reload = strategy_task("chromadb", "collection_reload")
index_rebuild = strategy_task("chromadb", "index_rebuild")
orphan_removal = strategy_task("chromadb", "orphan_removal")
snapshot_rollback = strategy_task("chromadb", "snapshot_rollback")

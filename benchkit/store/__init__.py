"""The registry: an SQLite file with reports, claims and history, and a folder beside it."""

from benchkit.store.database import Store, open_store, side_folder, store_path

__all__ = ["Store", "open_store", "side_folder", "store_path"]

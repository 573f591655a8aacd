"""The registry: an SQLite file with reports, claims and history, and a folder beside it."""

from benchkit.store.database import Store, check_place, is_there, open_store, side_folder, store_path

__all__ = ["Store", "check_place", "is_there", "open_store", "side_folder", "store_path"]

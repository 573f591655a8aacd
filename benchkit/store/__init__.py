"""The registry: an SQLite file with reports, claims and history, and a folder beside it."""

from benchkit.store.database import Store, check_place, is_there, side_folder, store_path
from benchkit.store.opening import look, open_store, refresh

__all__ = ["Store", "check_place", "is_there", "look", "open_store", "refresh", "side_folder", "store_path"]

"""Labels and notes on the command line, and names in tables."""

from pathlib import Path

from benchkit.store import open_store
from benchkit.store.labels import labels
from benchkit.store.notes import note_of

PLACE = "fp-6b7736f6a25ce061"
BIRD = f"bird-mae,path={PLACE}"
PARAMS = {"model": {"path": "/weights/bird_mae_tiny"}}


def fill_two(fill, path: Path) -> Path:
    fill(
        path, {"cell": ("hsn", BIRD, "linear", -1, 0), "params": PARAMS},
        {"cell": ("hsn", "pixels", "linear", -1, 0)},
    )  # fmt: skip
    return path


def test_tables_show_what_a_person_calls_a_thing_and_programs_get_canonical_names(cli, tmp_path: Path, fill) -> None:
    db = fill_two(fill, tmp_path / "r.sqlite")
    for words in (["ls"], ["table"], ["table", "--format", "markdown"], ["table", "--format", "latex"]):
        shown = cli(*words, "--db", db).out
        assert "fp-" not in shown
        assert "bird_mae_tiny" in shown.replace("\\", "")
        assert PLACE in cli(*words, "--canonical", "--db", db).out
    for words in (["ls", "--json"], ["table", "--format", "csv"], ["table", "--format", "json"]):
        assert PLACE in cli(*words, "--db", db).out


def test_what_tables_show_finds_it_again(cli, tmp_path: Path, fill) -> None:
    db = fill_two(fill, tmp_path / "r.sqlite")
    cli("label", "pixels", "Grey, 8 x 8", "--db", db)
    for word in ("bird-mae (bird_mae_tiny)", "bird-mae,path=/weights/bird_mae_tiny", "bird-mae", "Grey, 8 x 8"):
        lines = cli("ls", "--model", word, "--db", db).out.splitlines()
        assert len(lines) == 3, word
    assert "no run has model" in cli("ls", "--model", "bird-mae (other)", "--db", db).err


def test_a_label_is_given_listed_and_taken_away(cli, tmp_path: Path, fill) -> None:
    db = fill_two(fill, tmp_path / "r.sqlite")
    assert cli("label", "bird-mae", "Bird-MAE-L, ours", "--db", db).out == f"model {BIRD}: Bird-MAE-L, ours\n"
    for words in (["ls"], ["table"], ["table", "--format", "latex"]):
        assert "Bird-MAE-L, ours" in cli(*words, "--db", db).out
    assert "Bird-MAE-L, ours" in cli("label", "--db", db).out
    cli("label", "hsn", "High Sierras", "--db", db)
    with open_store(db) as store:
        assert (labels(store, "task"), labels(store, "model")) == ({"hsn": "High Sierras"}, {BIRD: "Bird-MAE-L, ours"})
    assert "has no label now" in cli("label", "hsn", "", "--db", db).out
    assert "no label for 'hsn' is given" in cli("label", "hsn", "--db", db).err
    assert "is nothing that the registry or a plugin knows" in cli("label", "nothing-such", "x", "--db", db).err
    assert "must be one line" in cli("label", "pixels", "a\nb", "--db", db).err


def test_a_name_that_is_several_things_is_not_labelled(cli, tmp_path: Path, fill) -> None:
    db = tmp_path / "r.sqlite"
    fill(db, {"cell": ("hsn", "pixels,size=3", "linear", -1, 0)}, {"cell": ("hsn", "pixels,size=5", "linear", -1, 0)})
    assert "'pixels' is several things" in cli("label", "pixels", "x", "--db", db).err
    assert "size=3: small" in cli("label", "pixels,size=3", "small", "--db", db).out


def test_a_run_has_a_note_and_tags(cli, tmp_path: Path, fill) -> None:
    db = fill_two(fill, tmp_path / "r.sqlite")
    assert cli("note", 1, "before the microphone was moved", "--tag", "old", "--db", db).out == "run 1: noted\n"
    shown = cli("show", 1, "--db", db).out
    assert "before the microphone was moved" in shown
    assert "old" in shown
    with open_store(db) as store:
        found = note_of(store, 1)
    assert found is not None
    assert found.tags == ("old",)
    cli("note", 1, "", "--db", db)
    with open_store(db) as store:
        assert note_of(store, 1) is None
    assert "must be one word" in cli("note", 1, "x", "--tag", "two words", "--db", db).err

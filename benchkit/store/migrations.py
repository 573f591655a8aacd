"""The schema, as the steps that made it: forwards only, each once, all under SQLite's write lock.

`PRAGMA user_version` counts the steps a store has had. A step is never edited once released; a change is a new step.
"""

import sqlite3
from functools import cache

APPLICATION_ID = 0x62636B74  # "bckt": how `file` and we tell a registry from any other SQLite file

_V1 = """
CREATE TABLE environments (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    benchkit_version TEXT NOT NULL,
    git_commit TEXT,
    git_dirty INTEGER,
    argv TEXT NOT NULL,
    versions TEXT NOT NULL,
    host TEXT NOT NULL,
    device TEXT NOT NULL
) STRICT;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    classifier TEXT NOT NULL,
    n_train INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    current INTEGER NOT NULL CHECK (current IN (0, 1)),
    metric TEXT NOT NULL,
    value REAL NOT NULL,
    low REAL,
    high REAL,
    chance REAL NOT NULL,
    warnings INTEGER NOT NULL,
    marks TEXT,
    n_train_used INTEGER NOT NULL,
    n_test INTEGER NOT NULL,
    n_skipped INTEGER NOT NULL,
    n_classes INTEGER NOT NULL,
    task_fingerprint TEXT NOT NULL,
    model_fingerprint TEXT NOT NULL,
    params TEXT NOT NULL,
    providers TEXT NOT NULL,
    record TEXT NOT NULL,
    environment_id INTEGER NOT NULL REFERENCES environments (id),
    started_at TEXT NOT NULL,
    finished_at TEXT NOT NULL,
    ingested_at TEXT NOT NULL,
    wall_s REAL NOT NULL,
    cpu_s REAL NOT NULL,
    peak_rss_bytes INTEGER NOT NULL,
    peak_device_bytes INTEGER
) STRICT;
CREATE UNIQUE INDEX runs_cell ON runs (task, model, classifier, n_train, seed) WHERE current;
CREATE INDEX runs_table ON runs (
    model, classifier, task, n_train, metric, seed, current, value, low, high, chance, marks, finished_at
);
CREATE INDEX runs_finished ON runs (finished_at);
CREATE INDEX runs_environment ON runs (environment_id);
CREATE INDEX runs_data ON runs (task, task_fingerprint) WHERE current;
CREATE INDEX runs_weights ON runs (model, model_fingerprint) WHERE current;

CREATE TABLE metrics (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    low REAL,
    high REAL,
    PRIMARY KEY (run_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE class_metrics (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    class_name TEXT NOT NULL,
    name TEXT NOT NULL,
    value REAL,
    n_train INTEGER NOT NULL,
    n_test INTEGER NOT NULL,
    PRIMARY KEY (run_id, class_name, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE checks (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('ok', 'warn', 'fail')),
    summary TEXT NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (run_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (run_id, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    classifier TEXT NOT NULL,
    n_train INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    owner TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_started REAL NOT NULL,
    slurm_job TEXT,
    claimed_at TEXT NOT NULL,
    heartbeat_at TEXT NOT NULL,
    PRIMARY KEY (task, model, classifier, n_train, seed)
) STRICT, WITHOUT ROWID;

CREATE VIEW results AS
SELECT runs.id AS run, task, model, classifier, n_train, seed,
       metric, value, low, high, chance, warnings, marks,
       n_train_used, n_test, n_skipped, n_classes, started_at, finished_at, wall_s, cpu_s, peak_rss_bytes,
       peak_device_bytes, host, device, benchkit_version, git_commit, git_dirty, versions
FROM runs JOIN environments ON environments.id = runs.environment_id
WHERE current;
"""

_V2 = """
CREATE TABLE sightings (
    owner TEXT NOT NULL,
    observer TEXT NOT NULL,
    heartbeat_at TEXT NOT NULL,
    seen_s REAL NOT NULL,
    PRIMARY KEY (owner, observer)
) STRICT, WITHOUT ROWID;

CREATE TABLE failures (
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    classifier TEXT NOT NULL,
    n_train INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    log TEXT NOT NULL,
    options TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    host TEXT NOT NULL,
    slurm_job TEXT,
    failed_at TEXT NOT NULL,
    PRIMARY KEY (task, model, classifier, n_train, seed)
) STRICT, WITHOUT ROWID;

CREATE TABLE submissions (
    job TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    cells INTEGER NOT NULL,
    folder TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    submitted_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE conflicts (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    other_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    difference TEXT NOT NULL,
    source TEXT NOT NULL,
    found_at TEXT NOT NULL,
    PRIMARY KEY (run_id, other_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX conflicts_other ON conflicts (other_id);

CREATE TABLE trainings (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    point TEXT NOT NULL,
    data_fingerprint TEXT NOT NULL,
    model_fingerprint TEXT NOT NULL,
    params TEXT NOT NULL,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    environment_id INTEGER NOT NULL REFERENCES environments (id),
    started_at TEXT NOT NULL,
    finished_at TEXT NOT NULL
) STRICT;

CREATE TABLE training_metrics (
    training_id INTEGER NOT NULL REFERENCES trainings (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (training_id, step, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE diagnoses (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    data_fingerprint TEXT NOT NULL,
    model_fingerprint TEXT NOT NULL,
    healthy INTEGER NOT NULL CHECK (healthy IN (0, 1)),
    verdict TEXT NOT NULL,
    details TEXT NOT NULL,
    page TEXT,
    environment_id INTEGER NOT NULL REFERENCES environments (id),
    started_at TEXT NOT NULL,
    finished_at TEXT NOT NULL
) STRICT;

CREATE TABLE diagnosis_points (
    diagnosis_id INTEGER NOT NULL REFERENCES diagnoses (id) ON DELETE CASCADE,
    point TEXT NOT NULL,
    name TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (diagnosis_id, point, name)
) STRICT, WITHOUT ROWID;
"""

_V3 = """
ALTER TABLE runs ADD COLUMN sealed TEXT;
ALTER TABLE runs ADD COLUMN digest TEXT;
ALTER TABLE trainings ADD COLUMN sealed TEXT;
ALTER TABLE trainings ADD COLUMN digest TEXT;
ALTER TABLE diagnoses ADD COLUMN sealed TEXT;
ALTER TABLE diagnoses ADD COLUMN digest TEXT;
"""

_V4 = """
ALTER TABLE failures ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE failures ADD COLUMN digest TEXT;
ALTER TABLE submissions ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE submissions ADD COLUMN digest TEXT;
ALTER TABLE conflicts ADD COLUMN digest TEXT;
CREATE TEMP TABLE numbered AS
SELECT of_job, task, model, classifier, n_train, seed, job, row_number() OVER (ORDER BY at, of_job DESC) AS n FROM (
    SELECT 0 AS of_job, task, model, classifier, n_train, seed, NULL AS job, failed_at AS at FROM failures
    UNION ALL SELECT 1, NULL, NULL, NULL, NULL, NULL, job, submitted_at FROM submissions
);
UPDATE failures SET seq = n FROM numbered AS t WHERE NOT of_job AND t.task = failures.task AND t.model = failures.model
    AND t.classifier = failures.classifier AND t.n_train = failures.n_train AND t.seed = failures.seed;
UPDATE submissions SET seq = n FROM numbered AS t WHERE of_job AND t.job = submissions.job;
DROP TABLE numbered;
CREATE INDEX failures_seq ON failures (seq);
CREATE INDEX submissions_seq ON submissions (seq);
"""

_V5 = """
CREATE TABLE places (
    fingerprint TEXT NOT NULL,
    path TEXT NOT NULL,
    host TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    PRIMARY KEY (fingerprint, path, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE labels (
    kind TEXT NOT NULL CHECK (kind IN ('task', 'model', 'classifier')),
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE studies (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    note TEXT NOT NULL,
    tags TEXT NOT NULL,
    sweep TEXT NOT NULL,
    user TEXT NOT NULL,
    host TEXT NOT NULL,
    started_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE study_cells (
    study_id INTEGER NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    classifier TEXT NOT NULL,
    n_train INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    PRIMARY KEY (study_id, model, classifier, task, n_train, seed)
) STRICT, WITHOUT ROWID;

CREATE TABLE notes (
    run_id INTEGER NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    note TEXT NOT NULL,
    tags TEXT NOT NULL,
    user TEXT NOT NULL,
    noted_at TEXT NOT NULL
) STRICT;
"""

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5)
VERSION = len(MIGRATIONS)
FILLED: dict[int, tuple[str, ...]] = {
    3: ("runs", "trainings", "diagnoses"), 4: ("failures", "submissions", "conflicts"),
}  # fmt: skip
"""Steps after which what is there gets its checksums (benchkit.store.whole), and of which tables."""
PLACED = 5
"""The step after which the places that runs name are noted (benchkit.store.placing)."""


@cache
def schema(version: int = VERSION) -> dict[tuple[str, str], str]:
    """What a registry of this schema is made of: (table, index or view, name) -> the SQL that SQLite keeps of it."""
    new = sqlite3.connect(":memory:")
    for script in MIGRATIONS[:version]:
        for statement in statements(script):
            new.execute(statement)
    found = new.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    new.close()
    return {(kind, name): sql for kind, name, sql in found}


def tables(version: int = VERSION) -> dict[str, str]:
    """Those of its tables."""
    return {name: sql for (kind, name), sql in schema(version).items() if kind == "table"}


def statements(script: str) -> list[str]:
    """The single statements of a script (executescript would commit the transaction they must share)."""
    return [s for s in script.split(";\n") if s.strip()]

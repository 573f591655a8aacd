"""The tables as peewee models. docs/schema.md describes every column; migrations.py creates them."""

import json
from typing import Any

from peewee import (
    BooleanField,
    CompositeKey,
    DatabaseProxy,
    FloatField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)

database = DatabaseProxy()
"""Never initialised: a Store binds the models to its own database (Store.bound)."""


class JSONField(TextField):
    """JSON as text, which SQLite's json functions read."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, allow_nan=False, sort_keys=True)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class Base(Model):
    class Meta:
        database = database
        legacy_table_names = False


class Environment(Base):
    digest = TextField(unique=True)
    benchkit_version = TextField()
    git_commit = TextField(null=True)
    git_dirty = BooleanField(null=True)
    argv = JSONField()
    versions = JSONField()
    host = TextField()
    device = TextField()

    class Meta:
        table_name = "environments"


class Run(Base):
    uuid = TextField(unique=True)
    task = TextField()
    model = TextField()
    classifier = TextField()
    n_train = IntegerField()
    seed = IntegerField()
    current = BooleanField()
    metric = TextField()
    value = FloatField()
    low = FloatField(null=True)
    high = FloatField(null=True)
    chance = FloatField()
    warnings = IntegerField()
    marks = TextField(null=True)
    n_train_used = IntegerField()
    n_test = IntegerField()
    n_skipped = IntegerField()
    n_classes = IntegerField()
    task_fingerprint = TextField()
    model_fingerprint = TextField()
    params = JSONField()
    providers = JSONField()
    record = JSONField()
    environment = ForeignKeyField(Environment)
    started_at = TextField()
    finished_at = TextField()
    ingested_at = TextField()
    wall_s = FloatField()
    cpu_s = FloatField()
    peak_rss_bytes = IntegerField()
    peak_device_bytes = IntegerField(null=True)
    sealed = TextField(null=True)
    digest = TextField(null=True)

    class Meta:
        table_name = "runs"


class Metric(Base):
    run = ForeignKeyField(Run, on_delete="CASCADE")
    name = TextField()
    value = FloatField()
    low = FloatField(null=True)
    high = FloatField(null=True)

    class Meta:
        table_name = "metrics"
        primary_key = CompositeKey("run", "name")


class ClassMetric(Base):
    run = ForeignKeyField(Run, on_delete="CASCADE")
    class_name = TextField()
    name = TextField()
    value = FloatField(null=True)
    n_train = IntegerField()
    n_test = IntegerField()

    class Meta:
        table_name = "class_metrics"
        primary_key = CompositeKey("run", "class_name", "name")


class Check(Base):
    run = ForeignKeyField(Run, on_delete="CASCADE")
    name = TextField()
    status = TextField()
    summary = TextField()
    details = JSONField()

    class Meta:
        table_name = "checks"
        primary_key = CompositeKey("run", "name")


class Artifact(Base):
    run = ForeignKeyField(Run, on_delete="CASCADE")
    kind = TextField()
    path = TextField()
    sha256 = TextField()
    bytes = IntegerField()

    class Meta:
        table_name = "artifacts"
        primary_key = CompositeKey("run", "kind")


class Claim(Base):
    task = TextField()
    model = TextField()
    classifier = TextField()
    n_train = IntegerField()
    seed = IntegerField()
    owner = TextField()
    host = TextField()
    pid = IntegerField()
    process_started = FloatField()
    slurm_job = TextField(null=True)
    claimed_at = TextField()
    heartbeat_at = TextField()

    class Meta:
        table_name = "claims"
        primary_key = CompositeKey("task", "model", "classifier", "n_train", "seed")


class Sighting(Base):
    owner = TextField()
    observer = TextField()
    heartbeat_at = TextField()
    seen_s = FloatField()

    class Meta:
        table_name = "sightings"
        primary_key = CompositeKey("owner", "observer")


class Failure(Base):
    task = TextField()
    model = TextField()
    classifier = TextField()
    n_train = IntegerField()
    seed = IntegerField()
    reason = TextField()
    error = TextField()
    log = TextField()
    options = JSONField()
    attempts = IntegerField()
    host = TextField()
    slurm_job = TextField(null=True)
    failed_at = TextField()
    seq = IntegerField()
    digest = TextField(null=True)

    class Meta:
        table_name = "failures"
        primary_key = CompositeKey("task", "model", "classifier", "n_train", "seed")


class Submission(Base):
    job = TextField(primary_key=True)
    owner = TextField()
    task = TextField()
    model = TextField()
    cells = IntegerField()
    folder = TextField()
    state = TextField()
    reason = TextField(null=True)
    submitted_at = TextField()
    updated_at = TextField()
    seq = IntegerField()
    digest = TextField(null=True)

    class Meta:
        table_name = "submissions"


class Conflict(Base):
    run = ForeignKeyField(Run, on_delete="CASCADE")
    other = ForeignKeyField(Run, on_delete="CASCADE", backref="+")
    difference = TextField()
    source = TextField()
    found_at = TextField()
    digest = TextField(null=True)

    class Meta:
        table_name = "conflicts"
        primary_key = CompositeKey("run", "other")


class Training(Base):
    uuid = TextField(unique=True)
    kind = TextField()
    task = TextField()
    model = TextField()
    point = TextField()
    data_fingerprint = TextField()
    model_fingerprint = TextField()
    params = JSONField()
    path = TextField()
    sha256 = TextField()
    environment = ForeignKeyField(Environment)
    started_at = TextField()
    finished_at = TextField()
    sealed = TextField(null=True)
    digest = TextField(null=True)

    class Meta:
        table_name = "trainings"


class TrainingMetric(Base):
    training = ForeignKeyField(Training, on_delete="CASCADE")
    step = IntegerField()
    name = TextField()
    value = FloatField()

    class Meta:
        table_name = "training_metrics"
        primary_key = CompositeKey("training", "step", "name")


class Diagnosis(Base):
    uuid = TextField(unique=True)
    task = TextField()
    model = TextField()
    data_fingerprint = TextField()
    model_fingerprint = TextField()
    healthy = BooleanField()
    verdict = TextField()
    details = JSONField()
    page = TextField(null=True)
    environment = ForeignKeyField(Environment)
    started_at = TextField()
    finished_at = TextField()
    sealed = TextField(null=True)
    digest = TextField(null=True)

    class Meta:
        table_name = "diagnoses"


class DiagnosisPoint(Base):
    diagnosis = ForeignKeyField(Diagnosis, on_delete="CASCADE")
    point = TextField()
    name = TextField()
    value = FloatField(null=True)

    class Meta:
        table_name = "diagnosis_points"
        primary_key = CompositeKey("diagnosis", "point", "name")


class Place(Base):
    fingerprint = TextField()
    path = TextField()
    host = TextField()
    seen_at = TextField()

    class Meta:
        table_name = "places"
        primary_key = CompositeKey("fingerprint", "path", "host")


class Label(Base):
    kind = TextField()
    name = TextField()
    label = TextField()

    class Meta:
        table_name = "labels"
        primary_key = CompositeKey("kind", "name")


class Study(Base):
    name = TextField(unique=True)
    note = TextField()
    tags = JSONField()
    sweep = TextField()
    user = TextField()
    host = TextField()
    started_at = TextField()
    updated_at = TextField()

    class Meta:
        table_name = "studies"


class StudyCell(Base):
    study = ForeignKeyField(Study, on_delete="CASCADE")
    task = TextField()
    model = TextField()
    classifier = TextField()
    n_train = IntegerField()
    seed = IntegerField()

    class Meta:
        table_name = "study_cells"
        primary_key = CompositeKey("study", "model", "classifier", "task", "n_train", "seed")


class Note(Base):
    run = ForeignKeyField(Run, on_delete="CASCADE", primary_key=True)
    note = TextField()
    tags = JSONField()
    user = TextField()
    noted_at = TextField()

    class Meta:
        table_name = "notes"


MODELS: tuple[type[Base], ...] = (
    Environment, Run, Metric, ClassMetric, Check, Artifact, Claim, Sighting, Failure, Submission, Conflict, Training,
    TrainingMetric, Diagnosis, DiagnosisPoint, Place, Label, Study, StudyCell, Note,
)  # fmt: skip

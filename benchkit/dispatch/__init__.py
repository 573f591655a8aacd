"""Where jobs run: this process, worker processes, a cluster."""

LOG = "log.txt"
"""Beside a job's file: what the job printed."""

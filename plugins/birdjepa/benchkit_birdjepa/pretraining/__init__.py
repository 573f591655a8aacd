"""Trainings of encoders: `benchkit pretrain`."""

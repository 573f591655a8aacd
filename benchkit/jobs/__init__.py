"""All cells of one (task, model): extract once, fit many, evaluate, seal."""

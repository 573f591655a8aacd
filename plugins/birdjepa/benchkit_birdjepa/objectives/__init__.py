"""What pretraining minimises. Each module's class is a benchkit.Objective; `context` is what they are given.

An objective of another package is a class of the same kind under the hook `benchkit_objectives`: it takes parameters
and a batch, calls `context.encode`, and returns the loss with an `Outcome`.
"""

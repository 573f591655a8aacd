"""Are a backbone's activations healthy, and if not, where does it go wrong?

    inputs -> gather (activations, streamed) -> judge (each place) -> attribution, remedies, weights -> verdict
    -> terminal (text), HTML (page), registry (record)

`benchkit.diagnose.run.diagnose` is the entry.
"""

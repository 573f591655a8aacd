"""Bytes to samples and spectrograms: decoding, the hub, fingerprints, frontends."""

"""Seeds of independent streams, named by what they are for."""

import hashlib


def stream(seed: int, purpose: str, index: int = 0) -> int:
    """Seed in [0, 2^63) of stream number `index` for a purpose.

    Streams with different purposes or numbers are unrelated, so the samples that certify a solution are never those
    that made it, and a run that is resumed draws what it would have drawn.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

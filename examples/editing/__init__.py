"""A handoff: a scanned page of Darwin's goes from hand to hand, and is refused until it is right."""

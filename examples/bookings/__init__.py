"""A trip is booked with four services, each with books of its own, and undone when one of them does not answer."""

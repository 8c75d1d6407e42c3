"""A network that computes an average by gossip: nobody knows all numbers, and nothing is counted twice."""

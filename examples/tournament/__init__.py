"""Programs play a knock-out tournament of Connect Four, in a pattern that is registered as data.

`connect_four`, `players` and `agents` are what a user of the engine would write. The pattern is the template
`tournament`: who meets whom, and when it is over, the engine decides from that data; referees only carry out matches.
"""

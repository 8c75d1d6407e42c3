from engine.embedded.backoff import HEALTHY_SECONDS, LONGEST_SECONDS, Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff()
    waits = [backoff.after_running(0.1) for _ in range(8)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-2:] == [LONGEST_SECONDS, LONGEST_SECONDS]


def test_what_ran_long_enough_waits_the_shortest_time_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after_running(0.1)
    assert backoff.after_running(HEALTHY_SECONDS) == 0.2
    assert backoff.after_running(0.1) == 0.4

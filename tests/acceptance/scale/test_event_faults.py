"""Events under duplicates, disorder, poison and SIGKILL; at full size `python -m benchmarks.event_faults`."""

from pathlib import Path

from benchmarks.event_faults.__main__ import run


def test_every_event_takes_effect_once_in_order_and_poison_is_buried_whoever_is_killed(server_directory: Path) -> None:
    directory = server_directory / "event-faults"
    directory.mkdir()
    directory.chmod(0o711)
    outcome = run(directory, events=20_000, seed=3, executions=8, kill_seconds=0.6)
    assert sum(outcome.kills.values()) >= 2, outcome
    assert outcome.poison == outcome.letters >= 190 or outcome.letters > outcome.poison, outcome
    assert outcome.sound, outcome

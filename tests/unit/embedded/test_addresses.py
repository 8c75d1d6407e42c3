import socket

import pytest

from engine.embedded import addresses
from engine.embedded.addresses import hold_free_port, hold_port, is_free, says_port_taken
from engine.errors import UnavailableError


def listening(port: int) -> socket.socket:
    """As servers do it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_held_ports_differ_and_servers_can_listen_on_them() -> None:
    held = [hold_free_port() for _ in range(20)]
    assert len({one.port for one in held}) == 20
    for one in held:
        one.hand_over()
        with listening(one.port), socket.create_connection(("127.0.0.1", one.port)):
            pass
        one.release()


def test_a_held_port_is_not_chosen_by_another_process_and_is_free_after_its_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = hold_free_port()
    monkeypatch.setattr(addresses, "FIRST_PORT", held.port)
    monkeypatch.setattr(addresses, "LAST_PORT", held.port + 1)
    with pytest.raises(UnavailableError, match="no free port between"):
        hold_free_port()
    held.release()
    again = hold_free_port()
    assert again.port == held.port
    again.release()


def test_a_port_stays_held_while_its_server_ends_and_starts_again() -> None:
    held = hold_free_port()
    listening(held.port).close()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", held.port))
    listening(held.port).close()
    held.release()


def test_a_port_that_somebody_listens_on_is_not_free_and_cannot_be_held() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_free(port)
        assert hold_port(port) is None
    assert is_free(port)


def test_where_holding_keeps_servers_away_it_ends_before_the_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.embedded.addresses.sys.platform", "darwin")
    held = hold_free_port()
    held.hand_over()
    with socket.socket() as other:
        other.bind(("127.0.0.1", held.port))


@pytest.mark.parametrize("message", ["bind: Address already in use", "could not bind IPv4 address", "x"])
def test_servers_say_in_different_words_that_a_port_is_taken(message: str) -> None:
    assert says_port_taken(message) is (message != "x")

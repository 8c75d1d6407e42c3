import socket

import pytest

from engine.embedded import addresses
from engine.embedded.addresses import free_ports, is_free
from engine.errors import UnavailableError


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])


def test_without_free_ports_it_gives_up_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "is_free", lambda port: False)
    with pytest.raises(UnavailableError, match="no 2 free ports"):
        free_ports(2)

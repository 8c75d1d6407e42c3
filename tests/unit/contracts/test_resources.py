"""Amounts of CPU and memory: people's and Kubernetes' forms, and what is neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.agents.kubernetes.pods import resource_amounts
from engine.contracts.capacity import MICROS
from engine.contracts.definition import Resources
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("2 cores", 2),
        ("1 core", 1),
        ("2", 2),
        ("1.5", 1.5),
        ("500m", 0.5),
        ("250000u", 0.25),
        ("1e2", 100),
        ("4 CPUs", 4),
    ],
)
def test_cores(text: str, cores: float) -> None:
    assert parse_cpu_cores(text) == cores


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 1000**3), ("4G", 4 * 1000**3), ("512Mi", 512 * 1024**2), ("1.5GiB", 3 * 1024**3 // 2),
        ("1073741824", 1024**3), ("64k", 64_000), ("1e6", 10**6), ("0.5Ei", 2**59), (" 1 GB ", 1000**3),
    ],
)  # fmt: skip
def test_memory(text: str, size: int) -> None:
    assert parse_memory_bytes(text) == size


NO_CORES = [
    "-1", "-500m", "", "m", "1 0", "two", "1e999", "1000000000", "10^9", "1;2", "\u0661", "1\x00", "NaN", "inf",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_CORES)
def test_what_are_no_cores_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValidationError, match="cpu"):
        Resources(cpu=text)


@pytest.mark.parametrize("text", ["-1", "-4GB", "", "GB", "1XB", "1e99", "9999999P", "4 G B", "1\n2", "0x10"])
def test_what_is_no_memory_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValidationError, match="memory"):
        Resources(memory=text)


@given(st.text(max_size=64))
def test_a_text_is_an_amount_or_refused(text: str) -> None:
    for parse in (parse_cpu_cores, parse_memory_bytes):
        try:
            amount = parse(text)
        except ValueError:
            continue
        assert 0 <= amount <= 2**60


@given(st.integers(1, 10**12), st.integers(1, 2**50))
def test_what_kubernetes_is_told_is_never_less_nor_a_thousandth_of_a_core_more(cpu_micros: int, memory: int) -> None:
    told = resource_amounts((cpu_micros, memory))
    assert 0 <= parse_cpu_cores(told["cpu"]) - cpu_micros / MICROS < 0.001 + 1e-6
    assert parse_memory_bytes(told["memory"]) == memory

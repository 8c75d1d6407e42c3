"""What everyone who handles agents' reports must compute alike."""

from zlib import crc32


def partition_of(execution_id: str, partitions: int) -> int:
    """CRC32 of the canonical text of the execution's id."""
    return crc32(execution_id.encode()) % partitions


def entry_order(entry_id: str) -> tuple[int, int]:
    """A stream entry's id, "<ms>-<sequence>", as numbers, for comparing."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)

"""Writes its executions' entries and remembers how far it was told that they are there; killed, it goes on from that.

`python -m benchmarks.event_faults.producer`, the job on stdin. What was written and not acknowledged is written again.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.event_faults.plan import PARTITIONS, Workload, entries
from engine.contracts.streams import partition_of
from engine.events import keys

AT_ONCE: Final = 20
AHEAD_MAX: Final = 100
"""Entries that nobody has taken yet, in one stream: then a producer waits."""
PAUSE_SECONDS: Final = 0.05


def main() -> None:
    job = json.loads(sys.stdin.readline())
    work = Workload(**job["work"])
    client = redis.Redis.from_url(job["redis_url"], socket_timeout=5, retry=Retry(NoBackoff(), 0))
    noted = Path(job["noted"])
    done = json.loads(noted.read_text()) if noted.exists() else {}
    lines = {number: islice(entries(work, number), done.get(str(number), 0), None) for number in job["executions"]}
    while lines:
        for number in list(lines):
            taken = list(islice(lines[number], AT_ONCE))
            if not taken:
                del lines[number]
                continue
            tenant, execution_id = work.execution(number)
            stream = keys.partition_stream(tenant, partition_of(execution_id, PARTITIONS))
            _write(client, stream, [dict(entry.fields) for entry in taken])
            done[str(number)] = done.get(str(number), 0) + len(taken)
            fresh = noted.with_suffix(".new")
            fresh.write_text(json.dumps(done))
            fresh.replace(noted)


def _write(client: redis.Redis, stream: str, batch: list[dict[Any, Any]]) -> None:
    """Until they are all acknowledged; always all of them again, so that their order stays."""
    while True:
        try:
            if client.xlen(stream) <= AHEAD_MAX:
                with client.pipeline(transaction=False) as pipe:
                    for fields in batch:
                        pipe.xadd(stream, fields)
                    pipe.execute()
                return
        except (redis.RedisError, OSError):
            pass  # killed, or still reading its file
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()

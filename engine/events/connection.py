"""Connections to Redis or Valkey."""

from typing import TypeAlias

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine.events.cluster import connect_cluster
from engine.redis_addresses import is_cluster
from engine.settings import Settings

TIMEOUT_SECONDS = 10.0

RedisClient: TypeAlias = Redis
"""For composition roots, which pass it on and do not speak to it."""


def connect(settings: Settings, *, repeat: bool = True) -> Redis:
    """A client with its own pool. Nothing is sent before the first command.

    A command whose connection breaks is sent again, although it may have been carried out: all that the engine sends
    bears that, except reading new entries for a consumer group, whose first answer would be lost. `repeat=False` is
    for that.
    """
    url = settings.redis_url.get_secret_value()
    if is_cluster(url):
        return connect_cluster(
            url,
            protocol=2,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3 if repeat else 0),
        )
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3 if repeat else 0),
        retry_on_error=[RedisConnectionError, RedisTimeoutError] if repeat else [],
    )

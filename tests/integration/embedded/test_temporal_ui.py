"""The embedded Temporal's UI knows where payloads are decoded."""

from pathlib import Path

import httpx

from engine.embedded.temporal import TemporalServer


async def test_the_ui_is_told_of_the_codec_endpoint(tmp_path: Path) -> None:
    server = TemporalServer(tmp_path)
    server.ui_codec_endpoint = "http://127.0.0.1:8002/api/v1/codec"
    await server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            settings = (await http.get(f"{server.ui_url}/api/v1/settings")).json()
    finally:
        await server.stop()
    assert settings["Codec"]["Endpoint"] == server.ui_codec_endpoint

"""Requests that schemathesis makes up from our own OpenAPI document: none may break the server. With
`make fuzz` it makes 2,000; here a few of each kind."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from helpers.serving import Running

CASES = int(os.environ.get("NOMOAT_FUZZ_CASES", "160"))
PATHS = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/embeddings": None,
    "/v1/models/{name}": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_no_request_breaks_the_server(running: Running, path: str) -> None:
    document = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in document.include(path=path).get_all_operations()]
    assert len(operations) == 1
    seen: dict[int, int] = {}

    @given(case=operations[0].as_strategy(generation_mode=GenerationMode.POSITIVE))
    @settings(
        max_examples=CASES // len(PATHS),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and len(str(case.body)) % 4:  # most of them get past the name
            case.body["model"] = "champion"
            if PATHS[path] is not None:
                case.body[PATHS[path]] = 2
        response = case.call()
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
        assert response.status_code < 500, (case.body, response.text)
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    ask()
    assert sum(seen.values()) > 0

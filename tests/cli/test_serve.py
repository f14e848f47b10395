"""`nomoat serve` and `nomoat keys`: which models, which address, which keys; and one whole run of the program."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from helpers import forked
from helpers.generations import workspace_with_generation
from helpers.workspaces import ledger_path
from nomoat.chat.conversation import Conversation, Message
from nomoat.cli import keys, serve
from nomoat.cli.catalogue import WorkspaceModels
from nomoat.cli.main import app
from nomoat.cli.served import find_generation
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.errors import LedgerError, ServeError
from nomoat.ledger.keys import holder_of
from nomoat.ledger.store import Ledger
from nomoat.serve import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace_with_generation(tmp_path_factory.mktemp("made"))


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "workspace"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    return place


def nomoat(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_names_lead_to_files(workspace: Path) -> None:
    models = WorkspaceModels(workspace)
    assert [model.name for model in models.names()] == ["champion", "gen-0001", "base"]
    assert models.resolve("champion") == models.resolve("gen-0001") == "gen-0001"
    assert models.resolve("base") == "base of gen-0001"
    assert models.resolve("gen-0002") is models.resolve("latest") is models.resolve("../x") is None
    assert models.find("gen-0001") == find_generation(workspace, "latest")
    assert models.find("base of gen-0001").gguf.name == "base-F32.gguf"


def test_serving_follows_the_champion(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.cli.catalogue._FRESH_S", 0.0)
    models = WorkspaceModels(workspace)
    assert models.resolve("champion") == "gen-0001"
    with Ledger.open(ledger_path(workspace)) as ledger:
        known = ledger.generation("latest")
        ledger.add_generation(known.night_id, base="x", served_file=known.served_file)
        assert models.resolve("champion") == "gen-0002"  # nobody was chosen: the newest
        ledger.judgements.crown(known.id, by="owner", said="it is better")
        assert models.resolve("champion") == "gen-0001"
        ledger.judgements.crown(None, by="rollback", said="neither is")
        assert models.resolve("champion") == "base of gen-0002"


def test_a_workspace_without_a_night_has_the_base(tmp_path: Path) -> None:
    models = WorkspaceModels(tmp_path)
    assert [model.name for model in models.names()] == ["base"]
    assert models.resolve("champion") is None
    with pytest.raises(LedgerError, match="no such folder"):
        WorkspaceModels(tmp_path / "gone").names()


def test_keys_are_made_listed_and_revoked(workspace: Path) -> None:
    made = json.loads(nomoat("keys", "add", "laptop", "--scope", "chat", "--scope", "vote", "--json").stdout)
    assert made.keys() == keys.KEYS.keys()
    with Ledger.open(ledger_path(workspace)) as ledger:
        holder = holder_of(ledger, made["key"])
        assert holder is not None
        assert (holder.name, holder.scopes) == ("laptop", {"chat", "vote"})
        plain = nomoat("keys", "add", "phone")
        phone = holder_of(ledger, plain.stdout.strip())
        assert phone is not None and phone.scopes == {"chat"}
        shown = nomoat("keys", "list").stdout
        assert "laptop" in shown and "chat, vote" in shown and made["key"] not in shown
        assert nomoat("keys", "revoke", "laptop").stdout == "laptop: revoked.\n"
        assert holder_of(ledger, made["key"]) is None
    listed = json.loads(nomoat("keys", "list", "--json").stdout)
    assert listed["key"] is None
    assert [(key["name"], key["revoked_at"] is None) for key in listed["keys"]] == [
        ("laptop", False),
        ("phone", True),
    ]


def test_mistakes_with_keys(workspace: Path) -> None:
    for words, said in (
        (("add",), "keys add: got no name; expected nomoat keys add NAME"),
        (("list", "x"), "keys list: got x; expected nomoat keys list"),
        (("add", "x", "--scope", "chatt"), 'got the scope "chatt"; expected chat, vote or admin.'),
        (("revoke", "x"), 'keys: no key named "x" is in use.'),
    ):
        result = nomoat("keys", *words)
        assert result.exit_code == 2
        assert said in result.stderr


def test_beyond_this_machine_keys_are_demanded(workspace: Path) -> None:
    result = nomoat("serve", "--host", "0.0.0.0", "--port", "0")
    assert result.exit_code == 2
    assert "beyond this machine the server demands keys, and there is none" in result.stderr
    assert "Make one first: nomoat keys add NAME" in result.stderr
    nomoat("keys", "add", "laptop")
    nomoat("keys", "revoke", "laptop")
    assert nomoat("serve", "--host", "0.0.0.0", "--port", "0").exit_code == 2


def test_limits_of_keys_need_keys(workspace: Path) -> None:
    result = nomoat("serve", "--port", "0", "--key-at-once", "2")
    assert result.exit_code == 2
    assert "limit keys, and on this machine alone none is demanded" in result.stderr


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_where_it_is_not_installed(workspace: Path) -> None:
    result = nomoat("serve", "--engine", "vllm")
    assert result.exit_code == 2
    assert 'vLLM is not installed\n  Install it: pip install "nomoat[vllm]"' in result.stderr


def test_addresses() -> None:
    with run.listen("127.0.0.1", 0) as here:
        assert run.is_loopback(here)
        port = here.getsockname()[1]
        assert run.url_of(here) == f"http://127.0.0.1:{port}"
        with pytest.raises(ServeError) as taken:
            run.listen("127.0.0.1", port)
        assert taken.value.message == f"cannot listen on 127.0.0.1:{port}: Address already in use"
        assert "another --port" in (taken.value.hint or "")
    with run.listen("0.0.0.0", 0) as everywhere:
        assert not run.is_loopback(everywhere)
    with pytest.raises(ServeError, match="--host nowhere.invalid: is no address"):
        run.listen("nowhere.invalid", 0)


@pytest.mark.slow
def test_the_whole_program_answers_as_the_terminal_does_and_stops_when_asked(workspace: Path) -> None:
    process = forked.Popen(
        [sys.executable, "-m", "nomoat.cli.main", "serve", "--port", "0", "--json", "--parallel", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None and process.stderr is not None
    told = ""
    while not told.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()
        told += line
    started = json.loads(told)
    assert started.keys() == serve.KEYS.keys()
    assert (started["models"], started["demands_key"]) == (["champion", "gen-0001", "base"], False)
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
    with httpx.Client(base_url=started["url"], timeout=60) as client:
        for name in ("champion", "gen-0001"):
            found = client.post("/v1/chat/completions", json={"model": name, **body})
            assert found.status_code == 200, found.text
        loaded = client.get("/health").json()["loaded"]
        assert loaded == ["gen-0001"]  # two names, one model
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0, process.stderr.read()
    assert "Traceback" not in process.stderr.read()
    model = find_generation(workspace, "latest")
    with LlamaCppEngine(model.gguf, tokenizer_dir=model.tokenizer_dir) as engine:
        talk = Conversation((Message("user", "Hello"),))
        (expected,) = engine.generate([talk], Sampling(max_new_tokens=8))
    assert found.json()["choices"][0]["message"]["content"] == expected.text.rstrip("\ufffd")
    with socket.socket() as free:  # the port is free again
        free.bind(("127.0.0.1", int(started["url"].rpartition(":")[2])))

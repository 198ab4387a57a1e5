"""The pages: what they show, what their buttons do, and that they take and give nothing elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mlx_plastic.cli.serve import _doors
from mlx_plastic.home import Home, find_home, write_json
from mlx_plastic.memory import Memory
from mlx_plastic.serve.api.keys import Keys, new_key, read_keys
from mlx_plastic.serve.dashboard import pages, views
from serving import Live, live
from test_serve_clients import add_packs

EVIL = "<script>alert('x')</script> & \"friends\""


def seed(home: Home) -> None:
    """A home with talks, packs, nights of every kind and measurements."""
    with Memory(home) as memory:
        for text, answer in ((f"My cat is called Rex. {EVIL}", "Noted."), ("My key is #private", "Fine.")):
            talk = memory.new_conversation()
            memory.remember(talk, "user", text)
            memory.remember(talk, "assistant", answer, worn=("one",))
        asked = memory.turns()[0].id
        memory.learned([asked], "2026-11-19")
    add_packs(home)
    for tag, status in (("2026-11-19", "passed"), ("2026-11-20", "failed"), ("2026-11-21", "running")):
        write_json(home.nights / tag / "night.json", night(tag, status, [asked]))
    evidence = {
        "verdict": {
            "passed": False,
            "reasons": [{"ok": False, "bound": "x", "text": f"too much was lost {EVIL}"}],
        },
        "before": {"scores": [{"name": "held-out", "value": 2.5}]},
        "after": {
            "scores": [{"name": "held-out", "value": 2.75}],
            "tasks": {"add-two": False, "turn on": True},
        },
    }
    earlier = {"after": {"scores": [{"name": "held-out", "value": 2.5}], "tasks": {"add-two": True}}}
    write_json(home.nights / "2026-11-19" / "verdict.json", earlier)
    write_json(home.nights / "2026-11-20" / "verdict.json", evidence)
    home.logs.mkdir(exist_ok=True)
    lines = [
        {"format_version": 1, "when": f"2026-11-1{i}T06:00:00+00:00", "tag": f"t{i}", "kind": "night"}
        | {"after": {"scores": [{"name": "capability", "value": 0.9 + i / 100}]}}
        for i in range(5)
    ]
    (home.logs / "nights.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def night(tag: str, status: str, turns: list[str]) -> dict[str, Any]:
    from mlx_plastic.sleep.journal import FORMAT_VERSION

    losses = [{"step": i, "train": 3.0 / (i + 1), "valid": None if i % 2 else 2.5} for i in range(5)]
    stage = {
        "at": f"{tag}T03:00:00+00:00",
        "seconds": 12.0,
        "files": {},
        "facts": {"samples": 9, "loss": 2.25},
    }
    return {
        "tag": tag,
        "status": status,
        "started": f"{tag}T02:00:00+00:00",
        "base_id": "nano",
        "base_fingerprint": "0" * 64,
        "worn_before": ["one"],
        "warm_start": True,
        "settings": {"gate": {"min_new_gain": 0.1 if status == "passed" else 0.2}},
        "turns": turns,
        "stages": {"lessons": stage, "train": stage | {"facts": {"losses": losses}}},
        "reasons": ["because"],
        "format_version": FORMAT_VERSION,
    }


def dashboard(home: Home, **more: Any) -> Any:
    keys = more.get("keys") or Keys()
    return live(home, board=lambda service: pages(service, _doors(home), keys), **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = find_home(tmp_path_factory.mktemp("shown"))
    seed(home)
    with dashboard(home) as found:
        yield found


def show(server: Live, path: str, **headers: str) -> tuple[int, str]:
    response, data = server.send("GET", path, headers=headers)
    return response.status, data.decode()


def press(server: Live, path: str, origin: str | None = None, **fields: str) -> Any:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": origin or server.url}
    return server.send("POST", path, urlencode(fields).encode(), headers)


PAGES = (
    *("/", "/?day=2026-01-01", "/memory", "/memory?q=cat", "/nights", "/nights/2026-11-19"),
    *(
        "/nights/2026-11-20",
        "/nights/2026-11-21",
        "/diff",
        "/diff?one=2026-11-19&two=2026-11-20",
        "/packs",
        "/packs/one",
        "/packs/one/activate",
    ),
    *("/compare", "/trends", "/surveys", "/login"),
)


class Checker(HTMLParser):
    """Finds what a strict policy would block, or what a reader of the page could not use."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.ids: set[str] = set()
        self.labels: set[str] = set()
        self.fields: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "style" in given or any(name.startswith("on") for name in given):
            self.faults.append(f"{tag} has an inline style or handler")
        if tag == "script" and not given.get("src", "").startswith("/static/"):
            self.faults.append("a script of its own")
        for name in ("src", "href", "action"):
            if given.get(name, "").startswith(("http:", "https:", "//", "javascript:")):
                self.faults.append(f"{tag} reaches elsewhere: {given[name]}")
        if "id" in given and given["id"] in self.ids:
            self.faults.append(f"id {given['id']} stands twice")
        self.ids.add(given.get("id", ""))
        if tag == "label":
            self.labels.add(given.get("for", ""))
        if tag in ("input", "select", "textarea"):
            self.fields.add(given.get("id", "no id"))


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_and_loads_nothing_from_elsewhere(server: Live, path: str) -> None:
    response, data = server.send("GET", path)
    text = data.decode()
    assert response.status == 200 and text.rstrip().endswith("</html>")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert response.headers["Cache-Control"] == "no-store"
    checker = Checker()
    checker.feed(text)
    assert checker.faults == [] and checker.fields <= checker.labels
    assert "<script>alert" not in text


def test_what_was_said_is_shown_with_its_fate_and_as_text(server: Live) -> None:
    _, text = show(server, "/")
    assert "My cat is called Rex. &lt;script&gt;" in text
    assert "learned" in text and "night 2026-11-19" in text
    assert "never learned" in text and "tagged private" in text
    _, found = show(server, "/memory?q=what+is+my+cat+called", HX_Request="true")
    assert "Rex" in found or show(server, "/memory?q=cat")[1].count("Rex")


def test_a_night_shows_its_verdict_its_evidence_and_its_loss(server: Live) -> None:
    _, text = show(server, "/nights/2026-11-20")
    assert "too much was lost &lt;script&gt;" in text and "failed" in text
    assert "held-out" in text and "0.25" in text
    assert "data-loss" in text and "samples 9" in text
    assert show(server, "/nights/2026-11-29")[0] == 404
    assert show(server, "/nights/..%2f..%2fetc")[0] == 404


def test_two_nights_stand_side_by_side_with_what_differs(server: Live) -> None:
    _, text = show(server, "/diff?one=2026-11-19&two=2026-11-20")
    assert re.search(r"gate\.min_new_gain</td><td>0\.1</td><td>0\.2</td><td>0\.1<", text)
    assert "Tasks that the second lost" in text and "add-two" in text and "turn on" not in text
    assert "passed" in text and "failed" in text
    _, latest = show(server, "/diff")
    assert re.search(r'name="one".*?<option selected>2026-11-20', latest, re.DOTALL)
    assert re.search(r'name="two".*?<option selected>2026-11-21', latest, re.DOTALL)
    assert show(server, "/diff?one=2026-11-19&two=none")[0] == 404
    assert "/diff?one=2026-11-19&amp;two=2026-11-20" in show(server, "/nights/2026-11-20")[1]
    assert "Compare with" not in show(server, "/nights/2026-11-19")[1]  # the first has none before it


def test_without_two_nights_there_is_nothing_to_compare(home: Home) -> None:
    with dashboard(home) as server:
        assert show(server, "/diff")[0] == 404
        assert "/diff" not in show(server, "/nights")[1]


def test_ranks_are_drawn_for_every_module_and_layer(server: Live) -> None:
    _, text = show(server, "/packs/one")
    ranks = server.service.store.read("one").manifest.rank_map
    assert text.count("<rect") == len(ranks)
    assert "mlp.down_proj, layer 4: rank" in text


def test_buttons_ask_before_and_do_what_they_say(server: Live) -> None:
    store = server.service.store
    assert store.active() == ()
    _, asked = show(server, "/packs/one/activate")
    assert "Wear it" in asked and store.active() == ()  # a link changes nothing
    assert press(server, "/packs/one/activate")[0].status == 303 and store.active() == ("one",)
    assert "it would be" in show(server, "/rollback")[1]
    assert press(server, "/rollback")[0].status == 303 and store.active() == ()
    response, data = press(server, "/rollback")
    assert response.status == 400 and b"Not done" in data  # nothing to go back to: told, not a fault


def test_a_turn_is_kept_out_of_nights_and_forgotten(server: Live) -> None:
    memory = server.service.memory
    said = memory.remember(memory.new_conversation(), "user", "Turn me off, turn me away.")
    press(server, f"/turns/{said.id}/no-train")
    assert memory.pick([said.id])[0].tags == {"no-train"}
    press(server, f"/turns/{said.id}/no-train")
    assert memory.pick([said.id])[0].tags == frozenset()
    assert "Turn me off" in show(server, f"/turns/{said.id}/forget")[1]
    assert memory.pick([said.id])  # still there
    assert press(server, f"/turns/{said.id}/forget")[0].status == 303
    assert "Turn me off" not in show(server, "/")[1]
    assert b"Turn me off" not in b"".join(file.read_bytes() for file in memory.files())


def test_two_models_are_asked_side_by_side_and_nothing_is_remembered(server: Live) -> None:
    before = len(server.said())
    response, data = press(server, "/compare", prompt="My dog is called Tom.", one="base", two="nano:one")
    text = data.decode()
    assert response.status == 200
    assert re.search(r"<h2>base</h2>", text) and re.search(r"<h2>nano:one</h2>", text)
    assert len(server.said()) == before
    assert press(server, "/compare", prompt="")[0].status == 400
    assert press(server, "/compare", prompt="x", one="none")[0].status == 404


def test_a_form_from_elsewhere_changes_nothing(server: Live) -> None:
    for origin in ("https://evil.example", "null"):
        assert press(server, "/packs/two/activate", origin)[0].status == 403
    bare, _ = server.send("POST", "/packs/two/activate", b"")
    assert bare.status == 403
    assert server.service.store.active() == ()


def test_a_key_is_asked_for_on_a_page_and_kept_in_a_cookie(home: Home) -> None:
    key = new_key(home)
    with dashboard(home, keys=read_keys(home)) as server:
        response, _ = server.send("GET", "/", headers={"Accept": "text/html"})
        assert response.status == 303 and response.headers["Location"] == "/login"
        assert show(server, "/login", Accept="text/html")[0] == 200
        assert show(server, "/static/plastic.css")[0] == 200
        assert press(server, "/login", key="wrong")[0].status == 401
        entered, _ = press(server, "/login", key=key)
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert show(server, "/", Cookie=cookie.split(";")[0])[0] == 200


def test_a_running_night_is_told_as_it_goes(server: Live) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/nights/live")
    response = connection.getresponse()
    told = response.readline() + response.readline()
    assert told.startswith(b"event: nights") and b'"2026-11-21"' in told and b"running" in told
    connection.close()


def test_an_open_page_does_not_keep_the_server_from_ending(home: Home) -> None:
    import dataclasses
    import http.client

    from serving import CONFIG

    patient = dataclasses.replace(CONFIG, grace_s=600.0)  # which the fixture does not wait for
    with dashboard(home, config=patient) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/nights/live")
        response = connection.getresponse()
        response.readline()
    assert response.read().endswith(b"\n\n")
    connection.close()


def test_vendored_scripts_come_with_their_licences() -> None:
    folder = Path(views.__file__).parent / "static" / "vendor"
    assert {p.name for p in folder.glob("*.LICENSE")} == {"htmx.LICENSE", "uPlot.LICENSE"}
    assert {p.name.split("-")[0] for p in folder.glob("*.js")} == {"htmx", "uPlot"}


def test_a_heatmap_knows_layers_and_modules() -> None:
    found = views.heatmap(
        {"model.layers.0.mlp.up_proj": 2, "model.layers.10.mlp.up_proj": 8, "x.layers.0.q": 4}
    )
    assert found["layers"] == [0, 10] and found["top"] == 8
    assert {(s["name"], s["layer"], s["rank"]) for s in found["squares"]} >= {("mlp.up_proj", 10, 8)}

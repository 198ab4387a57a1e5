"""The pages and what their buttons do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from mlx_plastic.errors import PlasticError
from mlx_plastic.serve.api.chat import whole
from mlx_plastic.serve.api.errors import ApiError, bad
from mlx_plastic.serve.api.guard import COOKIE
from mlx_plastic.serve.api.keys import Keys
from mlx_plastic.serve.api.requests import ChatRequest, Consent, Speaking
from mlx_plastic.serve.api.service import Service, in_thread
from mlx_plastic.serve.api.stream import event, sse
from mlx_plastic.serve.batch import Sampling
from mlx_plastic.serve.dashboard import views
from mlx_plastic.serve.dashboard.doors import Doors
from mlx_plastic.serve.dashboard.render import page

STATIC = Path(__file__).parent / "static"
FILES = {path.name: path for path in STATIC.rglob("*") if path.is_file()}
NIGHTS_EVERY_S = 2.0
MOST_QUESTION = 2000  # characters
COMPARED_TOKENS = 128

Show = Callable[[Request], Awaitable[Response]]


def pages(service: Service, doors: Doors, keys: Keys) -> list[BaseRoute]:
    board = Dashboard(service, doors, keys)
    gets: dict[str, Show] = {
        "/": board.today,
        "/memory": board.memory,
        "/turns/{turn}/forget": board.plan_forget,
        "/nights": board.nights,
        "/nights/live": board.live,
        "/nights/{tag}": board.night,
        "/diff": board.diff,
        "/packs": board.packs,
        "/packs/{name}": board.pack,
        "/packs/{name}/activate": board.confirm_activate,
        "/rollback": board.confirm_rollback,
        "/compare": board.compare,
        "/trends": board.trends,
        "/surveys": board.surveys,
        "/login": board.login,
        "/static/{name}": static,
    }
    posts: dict[str, Show] = {
        "/turns/{turn}/forget": board.forget,
        "/turns/{turn}/no-train": board.no_train,
        "/packs/{name}/activate": board.activate,
        "/rollback": board.rollback,
        "/compare": board.compared,
        "/login": board.logged_in,
    }
    return [
        *(Route(path, _told(show), methods=["GET"]) for path, show in gets.items()),
        *(Route(path, _told(_own(act)), methods=["POST"]) for path, act in posts.items()),
    ]


def _told(show: Show) -> Show:
    """Errors as a page."""

    async def endpoint(request: Request) -> Response:
        try:
            return await show(request)
        except PlasticError as error:
            return page("error.html", status=400, title="Not done", message=error.message, hint=error.hint)
        except ApiError as error:
            return page("error.html", status=error.status, title="Not done", message=error.message, hint="")

    return endpoint


def _own(act: Show) -> Show:
    """A form that changes something has to come from one of our pages: browsers say where it is from."""

    async def endpoint(request: Request) -> Response:
        if "origin" not in request.headers:
            raise ApiError(403, "this form was not sent by a page of this server")
        return await act(request)

    return endpoint


async def static(request: Request) -> Response:
    if (path := FILES.get(request.path_params["name"])) is None:
        raise ApiError(404, "there is no such file")
    return FileResponse(path, headers={"Cache-Control": "max-age=3600"})


async def form(request: Request) -> dict[str, str]:
    data = (await request.body())[: 64 << 10]
    try:
        return dict(parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=64))
    except ValueError:
        raise bad("the form cannot be read") from None


class Dashboard:
    """One method a page; what is changed redirects to what shows it."""

    def __init__(self, service: Service, doors: Doors, keys: Keys) -> None:
        self.service, self.doors, self.keys = service, doors, keys
        self.store, self.log = service.store, service.memory

    # -- what was said

    async def today(self, request: Request) -> Response:
        when = _date(request.query_params.get("day", ""))
        turns, more = await in_thread(views.day, self.log, when)
        stats = await in_thread(self.log.stats)
        return page("today.html", title="Today", day=when, turns=turns, more=more, stats=stats)

    async def memory(self, request: Request) -> Response:
        question = request.query_params.get("q", "").strip()[:MOST_QUESTION]
        hits = await in_thread(views.search, self.log, question) if question else []
        part = "_hits.html" if request.headers.get("hx-request") else "memory.html"
        return page(part, title="Memory", question=question, hits=hits)

    async def plan_forget(self, request: Request) -> Response:
        turns = await in_thread(self._turns, request)
        plan = await in_thread(self.doors.plan_forget, turns)
        return page("forget.html", title="Forget", turns=turns, plan=plan)

    async def forget(self, request: Request) -> Response:
        turns = await in_thread(self._turns, request)
        await in_thread(lambda: self.doors.forget(self.doors.plan_forget(turns)))
        return RedirectResponse("/", 303)

    async def no_train(self, request: Request) -> Response:
        (turn,) = await in_thread(self._turns, request)
        await in_thread(lambda: self.log.tag([turn.id], "no-train", remove="no-train" in turn.tags))
        if request.headers.get("hx-request"):
            (again,) = await in_thread(self._turns, request)
            (shown,) = await in_thread(views.shown, self.log, [again])
            return page("_turn.html", one=shown)
        return RedirectResponse("/", 303)

    def _turns(self, request: Request) -> list[Any]:
        turn = request.path_params["turn"]
        found = [one for one in self.log.pick([turn]) if one.id == turn]
        if not found:
            raise ApiError(404, "there is no such turn")
        return found

    # -- nights

    async def nights(self, request: Request) -> Response:
        rows = [views.night_row(j) for j in await in_thread(self.doors.nights)]
        return page("nights.html", title="Nights", nights=rows[::-1], worn=self.store.active())

    async def night(self, request: Request) -> Response:
        tag = request.path_params["tag"]
        journals = await in_thread(self.doors.nights)
        place = _place(journals, tag)
        journal = journals[place]
        found = await in_thread(views.evidence, journal)
        loss = await in_thread(views.loss, journal)
        return page(
            "night.html",
            title=f"Night {tag}",
            night=views.night_row(journal),
            stages=journal.record.stages,
            verdict=found.get("verdict") or {},
            scores=views.scores(found),
            loss=json.dumps(loss) if loss else "",
            worn=tag in self.store.active(),
            before=journals[place - 1].record.tag if place else "",
        )

    async def diff(self, request: Request) -> Response:
        """Two nights side by side: those asked for, else the latest two."""
        journals = await in_thread(self.doors.nights)
        if len(journals) < 2:
            raise ApiError(404, "there are no two nights to compare")
        given = [request.query_params.get(name, "") for name in ("one", "two")]
        one, two = (
            journals[_place(journals, tag) if tag else place]
            for tag, place in zip(given, (-2, -1), strict=True)
        )
        found = await in_thread(self.doors.difference, one, two)
        return page(
            "diff.html",
            title="Two nights",
            tags=[j.record.tag for j in reversed(journals)],
            one=views.night_row(one),
            two=views.night_row(two),
            parts=views.difference(found),
            lost=found["tasks_lost"],
            won=found["tasks_won"],
        )

    async def live(self, request: Request) -> Response:
        """Which stage a running night has reached; an event whenever that changes."""

        async def changes() -> AsyncIterator[str]:
            before = None
            while not self.service.leaving.is_set():
                last = [journal.record for journal in (await in_thread(self.doors.nights))[-3:]]
                now = [{"tag": r.tag, "status": r.status, "stages": list(r.stages)} for r in last]
                if now != before:
                    before = now
                    yield event(now, "nights")
                await asyncio.sleep(NIGHTS_EVERY_S)

        return sse(changes())

    # -- packs

    async def packs(self, request: Request) -> Response:
        rows = await in_thread(views.packs, self.store)
        history = await in_thread(self.store.history)
        return page(
            "packs.html", title="Packs", packs=rows, worn=self.store.active(), history=history[::-1][:20]
        )

    async def pack(self, request: Request) -> Response:
        name = request.path_params["name"]
        entry = next((e for e in await in_thread(self.store.entries) if e.name == name), None)
        if entry is None:
            raise ApiError(404, "there is no such pack")
        ranks = views.heatmap(dict(entry.manifest.rank_map)) if entry.manifest else None
        worn = name in self.store.active()
        return page("pack.html", title=f"Pack {name}", entry=entry, ranks=ranks, worn=worn)

    async def confirm_activate(self, request: Request) -> Response:
        name = request.path_params["name"]
        change = await in_thread(self.store.plan_activate, name)
        return page(
            "confirm.html",
            title=f"Wear {name}?",
            before=change.name_before,
            now=change.name,
            action=f"/packs/{name}/activate",
            word="Wear it",
        )

    async def activate(self, request: Request) -> Response:
        await in_thread(self.store.activate, request.path_params["name"])
        return RedirectResponse("/packs", 303)

    async def confirm_rollback(self, request: Request) -> Response:
        change = await in_thread(self.store.plan_rollback, None)
        return page(
            "confirm.html",
            title="Roll back?",
            before=change.name_before,
            now=change.name,
            action="/rollback",
            word="Roll back",
        )

    async def rollback(self, request: Request) -> Response:
        await in_thread(self.store.rollback, None)
        return RedirectResponse("/packs", 303)

    async def compare(self, request: Request) -> Response:
        return await self._pair("compare.html", ["base", "plastic"])

    async def compared(self, request: Request) -> Response:
        """One prompt, side by side; it is neither logged nor learned."""
        given = await form(request)
        asked = given.get("prompt", "").strip()[:MOST_QUESTION]
        chosen = [given.get("one", "base"), given.get("two", "plastic")]
        if not asked:
            raise bad("write what is to be asked")
        answers = await asyncio.gather(*(self._answer(request, model, asked) for model in chosen))
        told = [{"model": m, "text": text} for m, text in zip(chosen, answers, strict=True)]
        part = "_answers.html" if request.headers.get("hx-request") else "compare.html"
        return await self._pair(part, chosen, asked, told)

    async def _pair(
        self, part: str, chosen: list[str], asked: str = "", answers: Sequence[dict[str, str]] = ()
    ) -> Response:
        models = await self._models()
        return page(part, title="Compare", models=models, chosen=chosen, asked=asked, answers=answers)

    async def _answer(self, request: Request, model: str, asked: str) -> str:
        messages = [{"role": "user", "content": asked}]
        speaking = Speaking(Sampling(), COMPARED_TOKENS)
        question = ChatRequest(model, [], messages, speaking, Consent(log=False))
        answering, _ = await self.service.chat(question)
        (answer,) = await whole(request, answering)
        return answer.text

    async def _models(self) -> list[str]:
        models = await in_thread(self.service.names.list)
        return ["base", *(model["id"] for model in models if "context_length" in model)]

    # -- measurements

    async def trends(self, request: Request) -> Response:
        series = await in_thread(views.trends, self.store.home.logs)
        return page("trends.html", title="Trends", series=series, data=json.dumps(series))

    async def surveys(self, request: Request) -> Response:
        found = await in_thread(views.surveys, self.doors.runs)
        return page("surveys.html", title="Surveys", surveys=found)

    # -- who

    async def login(self, request: Request) -> Response:
        return page("login.html", title="Key", wrong=False)

    async def logged_in(self, request: Request) -> Response:
        key = (await form(request)).get("key", "").strip()
        if not self.keys.lets_in(key):
            await asyncio.sleep(0.5)  # guessing is to be slow
            return page("login.html", status=401, title="Key", wrong=True)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, key, max_age=30 * 86400, httponly=True, samesite="strict")
        return response


def _place(journals: Sequence[Any], tag: str) -> int:
    """Of the latest night of that tag. Raises ApiError."""
    places = [i for i, journal in enumerate(journals) if journal.record.tag == tag]
    if not places:
        raise ApiError(404, "there is no such night")
    return places[-1]


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return date.today()

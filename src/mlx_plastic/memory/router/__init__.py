"""Where each thing said goes: into the weights, where it can be looked up, both, or neither."""

from mlx_plastic.memory.router.book import (
    labels,
    least_sure,
    personal_router,
    record,
    recorded,
    route_turns,
    set_label,
)
from mlx_plastic.memory.router.decision import ROUTES, Decision, Route, RouterConfig, counts, parse_route
from mlx_plastic.memory.router.provenance import Heard, Span, own_words, spans_of
from mlx_plastic.memory.router.route import Router, plain_router

__all__ = [
    "ROUTES",
    "Decision",
    "Heard",
    "Route",
    "Router",
    "RouterConfig",
    "Span",
    "counts",
    "labels",
    "least_sure",
    "own_words",
    "parse_route",
    "personal_router",
    "plain_router",
    "record",
    "recorded",
    "route_turns",
    "set_label",
    "spans_of",
]

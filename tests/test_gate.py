from __future__ import annotations

import dataclasses
import json
import math

import pytest

from mlx_plastic.errors import BadConfig
from mlx_plastic.evals import Policy, Report, Score, Verdict, decide
from mlx_plastic.home import Home, settings

TASKS = {f"t{i}": i < 50 for i in range(60)} | {"r1": True, "r2": True}
BEFORE: dict[str, float] = {"night_loss": 3.0, "earlier_loss": 1.0, "general_ppl": 10.0, "recall": 0.9}
AFTER: dict[str, float] = {"night_loss": 1.0, "earlier_loss": 1.0, "general_ppl": 10.0, "recall": 0.9}


def report(values: dict[str, float], tasks: dict[str, bool] | None = None) -> Report:
    scores = tuple(Score(name, value, "", 100) for name, value in values.items())
    return Report(scores, TASKS if tasks is None else tasks, frozenset({"r1", "r2"}))


def judged(
    *, before: dict[str, float] | None = None, tasks: dict[str, bool] | None = None, **after: float
) -> Verdict:
    return decide(report(BEFORE | (before or {})), report(AFTER | after, tasks), Policy())


def failed(verdict: Verdict) -> list[str]:
    assert verdict.passed == (not verdict.failures)
    return [reason.bound for reason in verdict.failures]


def test_a_night_that_learned_and_lost_nothing_passes() -> None:
    verdict = judged()
    assert verdict.passed
    assert [reason.bound for reason in verdict.reasons] == [
        "night_gain",
        "earlier_loss_rise",
        "general_ppl_rise",
        "recall_drop",
        "harness_lost",
        "refusals_lost",
    ]


def test_the_defaults_are_the_documented_bounds() -> None:
    policy = Policy()
    assert policy.max_ppl_rise_pct == 2.0
    assert policy.max_harness_lost == 1
    assert policy.max_refusals_lost == 0
    assert policy.max_old_loss_rise == 0.10
    assert policy.min_new_gain > 0


@pytest.mark.parametrize(
    ("name", "kept", "broken", "bound"),
    [
        ("night_loss", 2.9, 2.99, "night_gain"),
        ("night_loss", 2.94, 3.5, "night_gain"),
        ("earlier_loss", 1.0999, 1.1001, "earlier_loss_rise"),
        ("earlier_loss", 0.2, 9.0, "earlier_loss_rise"),
        ("general_ppl", 10.199, 10.201, "general_ppl_rise"),
        ("general_ppl", 9.0, 30.0, "general_ppl_rise"),
        ("recall", 0.81, 0.79, "recall_drop"),
    ],
)
def test_each_bound_holds_on_its_two_sides(name: str, kept: float, broken: float, bound: str) -> None:
    assert failed(judged(**{name: kept})) == []
    assert failed(judged(**{name: broken})) == [bound]


def test_exactly_the_bound_is_within_it() -> None:
    policy = Policy(min_new_gain=0.5, max_old_loss_rise=0.25)
    after = report(AFTER | {"night_loss": 2.5, "earlier_loss": 1.25})
    assert decide(report(BEFORE), after, policy).passed


def lose(*names: str) -> dict[str, bool]:
    return TASKS | dict.fromkeys(names, False)


def test_one_task_may_be_lost_and_two_may_not() -> None:
    assert failed(judged(tasks=lose("t0"))) == []
    assert failed(judged(tasks=lose("t0", "t1"))) == ["harness_lost"]


def test_tasks_won_do_not_pay_for_tasks_lost() -> None:
    won = dict.fromkeys((f"t{i}" for i in range(50, 60)), True)
    assert failed(judged(tasks=lose("t0", "t1") | won)) == ["harness_lost"]


def test_a_task_that_failed_before_cannot_be_lost() -> None:
    assert failed(judged(tasks=lose("t58", "t59"))) == []


def test_not_one_refusal_may_be_lost() -> None:
    verdict = judged(tasks=lose("r1"))
    assert failed(verdict) == ["refusals_lost"]
    assert "r1" in verdict.failures[0].text


def test_a_task_that_was_not_asked_again_is_lost() -> None:
    fewer = {name: ok for name, ok in TASKS.items() if name not in ("t0", "t1")}
    assert failed(judged(tasks=fewer)) == ["harness_lost"]


def test_a_harness_that_was_not_run_fails_both_bounds() -> None:
    assert failed(judged(tasks={})) == ["harness_lost", "refusals_lost"]
    empty = decide(report(BEFORE, {}), report(AFTER), Policy())
    assert failed(empty) == ["harness_lost", "refusals_lost"]
    assert "was not run before" in empty.failures[0].text


def test_a_harness_not_run_fails_even_if_nothing_could_be_lost() -> None:
    assert not decide(report(BEFORE, {"t": False}), report(AFTER, {}), Policy()).passed


BOUND = {
    "night_loss": "night_gain",
    "earlier_loss": "earlier_loss_rise",
    "general_ppl": "general_ppl_rise",
    "recall": "recall_drop",
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", BOUND)
def test_a_score_that_is_no_number_fails(name: str, side: str, value: float) -> None:
    verdict = judged(before={name: value}) if side == "before" else judged(**{name: value})
    assert failed(verdict) == [BOUND[name]]
    assert "is no number" in verdict.failures[0].text


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", BOUND)
def test_a_score_missing_on_one_side_fails(name: str, side: str) -> None:
    before, after = dict(BEFORE), dict(AFTER)
    del (before if side == "before" else after)[name]
    assert failed(decide(report(before), report(after), Policy())) == [BOUND[name]]


def test_the_first_night_has_no_earlier_lessons_to_judge() -> None:
    names = ("earlier_loss", "recall")
    before, after = ({k: v for k, v in d.items() if k not in names} for d in (BEFORE, AFTER))
    verdict = decide(report(before), report(after), Policy())
    assert verdict.passed
    assert "earlier_loss_rise" not in [reason.bound for reason in verdict.reasons]


@pytest.mark.parametrize("name", ["night_loss", "general_ppl"])
def test_a_required_score_missing_on_both_sides_fails(name: str) -> None:
    before, after = ({k: v for k, v in d.items() if k != name} for d in (BEFORE, AFTER))
    assert failed(decide(report(before), report(after), Policy())) == [BOUND[name]]


@pytest.mark.parametrize("ppl", [0.0, -5.0, 0.9])
def test_a_perplexity_below_1_is_no_perplexity(ppl: float) -> None:
    assert failed(judged(general_ppl=ppl)) == ["general_ppl_rise"]
    assert failed(judged(before={"general_ppl": ppl})) == ["general_ppl_rise"]


def test_a_poisoned_night_fails_by_every_bound_at_once() -> None:
    verdict = judged(
        night_loss=8.0, earlier_loss=7.0, general_ppl=900.0, recall=0.0, tasks=dict.fromkeys(TASKS, False)
    )
    assert len(failed(verdict)) == 6


def test_every_reason_is_one_sentence_with_its_numbers() -> None:
    texts = {reason.bound: reason.text for reason in judged(general_ppl=12.5, tasks=lose("t3")).reasons}
    assert (
        texts["general_ppl_rise"]
        == "general perplexity went 10.00 -> 12.50, +25.00 %; at most +2.00 % is allowed"
    )
    assert texts["harness_lost"] == "tasks passed went 52 -> 51 of 62; 1 lost (t3), 1 allowed"
    assert texts["night_gain"].startswith("loss on tonight's held-out lessons went 3.000 -> 1.000 nats/token")


def test_reasons_carry_the_numbers_they_rest_on() -> None:
    reason = next(r for r in judged(general_ppl=12.5).reasons if r.bound == "general_ppl_rise")
    assert (reason.before, reason.after, reason.limit, reason.unit, reason.ok) == (
        10.0,
        12.5,
        2.0,
        "%",
        False,
    )
    assert reason.change == pytest.approx(25.0)


def test_a_verdict_fits_into_json_even_with_nan() -> None:
    text = json.dumps(judged(night_loss=math.nan, tasks={}).as_dict(), allow_nan=False)
    assert json.loads(text)["passed"] is False


def test_deciding_changes_nothing_and_is_the_same_twice() -> None:
    before, after = report(BEFORE), report(AFTER, lose("t0"))
    first = decide(before, after, Policy())
    assert first == decide(before, after, Policy())
    assert dataclasses.asdict(before)["tasks"] == TASKS


def test_the_policy_comes_from_the_config(home: Home) -> None:
    home.config_file.write_text("[gate]\nmax_ppl_rise_pct = 5\nmax_harness_lost = 3\n")
    policy = settings(home, "gate", Policy)
    assert (policy.max_ppl_rise_pct, policy.max_harness_lost, policy.min_new_gain) == (
        5,
        3,
        Policy().min_new_gain,
    )
    home.config_file.write_text("[gate]\nmax_ppl_rise = 5\n")
    with pytest.raises(BadConfig, match="max_ppl_rise") as caught:
        settings(home, "gate", Policy)
    assert "max_ppl_rise_pct" in caught.value.hint

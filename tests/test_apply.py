from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadPack, BaseMismatch, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs import Factors, Pack, Store
from mlx_plastic.packs.wear.apply import apply_pack
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.packs.wear.probe import PROBE_TOKENS, PROBES, prove, proved
from test_attach import modules, pack_of, random_factors, random_pack
from test_engine import add_pack


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture
def store(home: Home, tiny: Base) -> Store:
    store = Store(home)
    add_pack(store, "loud", tiny.fingerprint)
    add_pack(store, "idle", tiny.fingerprint, size=0.0)
    add_pack(store, "foreign", "ab" * 32)
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, arguments, prog_name="plastic")


# -- proof of effect


def test_the_proof_is_the_mean_kl_and_the_largest_logit_change_over_the_probes(tiny: Base) -> None:
    pack = random_pack(tiny)
    kls, changes = [], []
    for text in PROBES:
        tokens = tiny.tokenizer.encode(text, add_special_tokens=False)[:PROBE_TOKENS]
        bare = np.array(tiny.logits(tokens), np.float64)
        with attached(tiny.model, {"p": pack}, fingerprint=tiny.fingerprint):
            worn = np.array(tiny.logits(tokens), np.float64)
        log_p, log_q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (bare, worn))
        kls += list((np.exp(log_p) * (log_p - log_q)).sum(-1))
        changes.append(np.abs(worn - bare).max())
    found = prove(tiny, {"p": pack})
    assert found.mean_kl_nats == pytest.approx(np.mean(kls), rel=1e-3)  # float32 sums over the vocabulary
    assert found.max_logit_change == pytest.approx(max(changes), rel=1e-4)
    assert found.mean_kl_nats > 1e-4  # control: there is something to measure


def test_what_is_worn_stays_on_and_does_not_count(tiny: Base) -> None:
    one, two = random_pack(tiny, 1), random_pack(tiny, 2)
    alone = prove(tiny, {"two": two})
    with attached(tiny.model, {"one": one}, fingerprint=tiny.fingerprint):
        before = modules(tiny.model)
        assert prove(tiny, {"two": two}) == alone
        assert modules(tiny.model) == before
    assert prove(tiny, {"two": two}, scales={"two": 0.5}).mean_kl_nats < alone.mean_kl_nats


def test_a_base_in_half_precision_tells_a_pack_lost_in_its_rounding(checkpoint: Path) -> None:
    base = load_base(str(checkpoint))
    pack = random_pack(base)
    faint = pack_of(base, {p: dataclasses.replace(f, alpha=1e-6) for p, f in pack.factors.items()})
    assert proved(base, {"p": faint}).acts  # control: in float32 it is still there
    base.model.set_dtype(mx.bfloat16)
    with pytest.raises(BadPack, match=r"the norm [0-9.e-]+, which is lost in the rounding .*\(bfloat16\)"):
        proved(base, {"p": faint})
    assert proved(base, {"p": pack}).acts


def test_a_pack_that_breaks_the_numbers_is_refused(tiny: Base) -> None:
    huge = {p: Factors(f.a * 0 + 6e4, f.b * 0 + 6e4, 1e30) for p, f in random_factors(tiny, 0, 2).items()}
    with pytest.raises(BadPack, match="no numbers any more"):
        proved(tiny, {"p": dataclasses.replace(random_pack(tiny), factors=huge)})  # no file may hold these


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a, b: (a, b * 0), "every B is zero"),
        (lambda a, b: (a * 0, b), "in every module A or B is zero"),
    ],
)
def test_a_pack_of_zeros_is_refused_with_the_reason(tiny: Base, spoil: object, reason: str) -> None:
    def idle() -> Pack:
        spoilt = {}
        for path, f in random_factors(tiny, 0, 2).items():
            a, b = spoil(f.a, f.b)  # type: ignore[operator]
            spoilt[path] = Factors(a, b, f.alpha)
        return pack_of(tiny, spoilt)

    with pytest.raises(BadPack, match=f"pack 'p' does nothing: {reason}"):
        proved(tiny, {"p": idle()})
    one = next(iter(targets(tiny.model)))
    mixed = idle().factors | {one: random_factors(tiny, 0, 2)[one]}
    assert proved(tiny, {"p": pack_of(tiny, mixed)}).acts  # control: one module that acts is enough


def test_no_packs_change_nothing_and_are_not_refused(tiny: Base) -> None:
    assert proved(tiny, {}).mean_kl_nats == 0.0


# -- apply


def test_apply_checks_proves_and_wears(store: Store, tiny: Base) -> None:
    before = modules(tiny.model)
    tried = apply_pack(store, tiny, "loud", dry_run=True)
    assert tried.change is None and tried.proof.acts and store.active() == ()
    done = apply_pack(store, tiny, "loud")
    assert done.change is not None and done.proof == tried.proof
    assert store.active() == ("loud",)
    assert modules(tiny.model) == before  # it is worn by the home, not left on this model


@pytest.mark.parametrize(("name", "error"), [("idle", BadPack), ("foreign", BaseMismatch)])
def test_apply_wears_nothing_that_does_not_act_or_fit(
    store: Store, tiny: Base, name: str, error: type[PlasticError]
) -> None:
    store.activate("loud")
    for dry_run in (True, False):
        with pytest.raises(error):
            apply_pack(store, tiny, name, dry_run=dry_run)
    assert store.active() == ("loud",)


def test_apply_keeps_to_the_profile(store: Store, tiny: Base) -> None:
    high = random_pack(tiny, rank=9, name="high")
    store.add(high.factors, high.manifest)
    with pytest.raises(BadPack, match=r"self_attn\.q_proj has rank 9, more than 8"):
        apply_pack(store, tiny, "high")
    assert apply_pack(store, tiny, "high", profile="heavy").change is not None


def test_a_folder_elsewhere_can_be_tried_but_not_worn(store: Store, tiny: Base, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "loud"
    folder.parent.mkdir()
    store.folder("loud").rename(folder)
    assert apply_pack(store, tiny, str(folder), dry_run=True).proof.acts
    with pytest.raises(PlasticError, match="lies outside of this home"):
        apply_pack(store, tiny, str(folder))


def test_a_quarantined_pack_needs_force(store: Store, tiny: Base) -> None:
    store.quarantine("loud", {"passed": False})
    with pytest.raises(PlasticError, match="quarantined"):
        apply_pack(store, tiny, "loud")
    assert apply_pack(store, tiny, "loud", force=True).change is not None


def test_the_command_reports_the_proof(store: Store, checkpoint: Path) -> None:
    done = run("packs", "apply", "--name", "loud", "--base", str(checkpoint), "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "largest logit change" in done.stdout and "no: this was a dry run" in done.stdout
    assert store.active() == ()
    done = run("packs", "apply", "--name", "loud", "--base", str(checkpoint), "--json")
    value = json.loads(done.stdout)
    assert value["worn"] and value["kl_nats"] > 0 and math.isfinite(value["max_logit_change"])
    assert store.active() == ("loud",)
    assert "chats of this home use the base nano" in done.stderr


def test_the_command_refuses_with_reason_and_hint(store: Store, checkpoint: Path) -> None:
    for name, told in (
        ("idle", "every B is zero"),
        ("foreign", "learned on base abababababab"),
        ("lod", "did you mean 'loud'?"),
    ):
        done = run("packs", "apply", "--name", name, "--base", str(checkpoint))
        assert done.exit_code == 1
        assert told in done.stderr and "hint: " in done.stderr
    assert run("packs", "apply", "--base", str(checkpoint)).exit_code == 2

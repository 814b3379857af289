"""Models side by side on images: VAE's blur and the tables, in very small, and their verdicts."""

import sys
from functools import partial

import pytest
import torch
from contexts import context_of

from otgen import plots
from otgen.experiments import blur, lineup, run, tables
from otgen.experiments import recipe as recipes
from otgen.experiments.registry import EXPERIMENTS
from otgen.metrics import train_lenet
from otgen.models import AEOTGAN, MODELS, Generative

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

TINY = {"sets": ["digits"], "models": ["ae", "vae", "gan", "wgan"], "repeats": 1, "d": 3, "width": 2, "steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")  # where one classifier serves all tests


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blur", "tables-digits"])
def test_from_end_to_end(name, folder, monkeypatch):
    monkeypatch.setattr(lineup, "train_lenet", partial(train_lenet, epochs=1))
    context = context_of(name, folder, **TINY)
    experiment = EXPERIMENTS[recipes.load(name).experiment]
    outcomes = {part: work() for part, work in experiment.parts(context).items()}
    real = next(outcome for part, outcome in outcomes.items() if part.startswith("digits-data"))
    assert real.values["fid"] < outcomes["digits-gan-0"].values["fid"]
    assert real.values["n"] == 898
    assert 0.9 < real.values["ratio"] < 1.1
    findings = experiment.conclude(context, outcomes)
    assert all(claim.figure in findings.pictures and claim.evidence for claim in findings.claims)
    assert findings.claims
    (table,) = findings.tables
    assert len(table.rows) == 5
    assert {len(row) for row in table.rows} == {len(table.header)}
    for picture in findings.pictures.values():
        assert plots.render(picture.figure).startswith(b"\x89PNG")


def test_every_model_of_the_recipes_is_there():
    for name in ("blur", "tables-digits", "tables-mnist"):
        assert set(recipes.load(name).settings["models"]) <= set(MODELS)
    generative = {name for name, kind in MODELS.items() if issubclass(kind, Generative)}
    lecture = set(recipes.load("tables-digits").settings["models"])
    assert lecture <= generative | {"ae"}  # a newcomer's model need not be in the tables at once
    assert len(lecture) >= 16


def test_an_ae_ot_gan_spends_half_of_its_batches_on_its_autoencoder(tmp_path, monkeypatch):
    seen = {}

    def fit(self, x, **given):
        seen.update(given, ae_epochs=self._arguments["ae_epochs"])
        return self

    monkeypatch.setattr(AEOTGAN, "fit", fit)
    context = context_of("tables-digits", tmp_path, d=3, width=2, steps=40, batch=16)
    lineup.train(context, "ae-ot-gan", torch.zeros(32, 1, 8, 8), 0)
    assert (seen["steps"], seen["ae_epochs"]) == (20, 10)  # 2 batches an epoch


def test_a_table_says_whose_settings_are_others(tmp_path):
    run = {"fid": 1.0, "sharpness": 1.0, "ratio": 1.0, "nearer": 0.5, "n": 9, "metric": "FID[x]", "accuracy": 1.0}
    context = context_of("tables-digits", tmp_path, models=["wgan", "vae", "ae-ot-gan"])
    runs = {("digits", name): [run] for name in ("data", *context.settings["models"])}
    fid = {key: [1.0] for key in runs}
    caption = tables._table(context, "digits", runs, fid, fid).caption
    told = "defaults but for wgan (lr 0.0005), ae-ot-gan (half of the batches for its autoencoder). FID"
    assert told in caption
    assert lineup.unlike(["vae", "ae-ot"]) == ""


@pytest.mark.slow
def test_copies_of_what_was_seen_are_told(folder, monkeypatch):
    class Copier:
        def __init__(self, seen):
            self.seen = seen

        def sample(self, n, generator):
            return self.seen[:n]

    monkeypatch.setattr(lineup, "train_lenet", partial(train_lenet, epochs=1))
    monkeypatch.setattr(lineup, "train", lambda context, name, seen, seed: Copier(seen))
    values = lineup.score(context_of("tables-digits", folder, **TINY), "digits", "vae", 0).values
    fresh = lineup.score(context_of("tables-digits", folder, **TINY), "digits", "data", 0).values
    assert values["fid"] == pytest.approx(fresh["fid"], rel=1e-6)  # copies gain nothing
    assert values["ratio"] < 0.01
    assert values["nearer"] > 0.99


def test_only_models_that_were_trained_are_compared():
    assert tables._pairs({"a": ("b", "c"), "b": ("c",)}, ["a", "c"]) == [("a", "c")]


def test_what_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sets must be of digits, mnist, got 'celeba'"):
        blur.parts(context_of("blur", tmp_path, sets=["celeba"]))
    with pytest.raises(ValueError, match="models must be of ae, .*, got 'pixelcnn'"):
        tables.parts(context_of("tables-digits", tmp_path, models=["pixelcnn"]))


@pytest.mark.parametrize("name", ["tables-digits", "useful-w", "all"])
def test_pot_is_missed_before_any_part(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match="wanted POT"):
        run(name, output=tmp_path / "out", fast=True, note=pytest.fail)
    assert not (tmp_path / "out").exists()


def test_verdicts_on_sharpness():
    sharp = {"data": [1.0], "vae": [0.5, 0.51], "wae-mmd": [0.6, 0.61], "wae-gan": [0.7, 0.71], "ae-ot": [0.9, 0.91]}
    claims = blur._claims("digits", {("digits", name): values for name, values in sharp.items()})
    assert [claim.verdict for claim in claims] == ["confirmed"] * 3
    sharp |= {"vae": [1.1, 1.11], "wae-mmd": [1.2, 1.21], "ae-ot": [1.3, 1.31]}
    claims = blur._claims("digits", {("digits", name): values for name, values in sharp.items()})
    assert [claim.verdict for claim in claims] == ["not confirmed"] * 3
    claims = blur._claims("digits", {("digits", name): values[:1] for name, values in sharp.items()})
    assert [claim.verdict for claim in claims] == ["not testable at this size"] * 3


def test_an_order_is_confirmed_by_every_pair_alone():
    fid = {
        ("digits", name): values
        for name, values in {"a": [1.0, 1.1], "b": [2.0, 2.1], "c": [2.0, 2.2], "data": [0.5]}.items()
    }
    assert tables._claim([("a", "b"), ("a", "c")], "digits", fid).verdict == "confirmed"
    claim = tables._claim([("a", "b"), ("c", "a"), ("b", "c")], "digits", fid)
    assert claim.verdict == "not confirmed"
    assert "a 1.05 ± 0.07 < b 2.05 ± 0.07; c 2.1 ± 0.1 > a 1.05 ± 0.07; b 2.05 ± 0.07 ≈ c 2.1 ± 0.1" in claim.evidence


def test_agreement_with_the_published_order():
    published = {"ae": 1.0, "ae-ot": 2.0, "wgan": 3.0, "gan": 4.0}
    fid = {("digits", name): [value] for name, value in published.items()}
    assert tables._rank("digits", fid).verdict == "confirmed"
    fid["digits", "ae"] = [9.0]
    claim = tables._rank("digits", fid)
    assert claim.verdict == "not confirmed"
    assert "3 of 6 pairs agree. Published: ae, ae-ot, wgan, gan; here: ae-ot, wgan, gan, ae." in claim.evidence

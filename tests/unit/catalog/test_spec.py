from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from appliance.catalog.spec import ID_PATTERN, ModelEntry, ModelSpec, PriceEntry, checked_tariff


def entry(**changes):
    return ModelEntry(
        **{
            "id": "owner/name",
            "task": "embeddings",
            "file": "name.gguf",
            "price": PriceEntry(unit="1M tokens", realtime=Decimal("0.008")),
            "max_input_tokens": 512,
            "pooling": "mean",
            "dimensions": 384,
            **changes,
        }
    )


def rerank(**changes):
    return entry(
        **{
            "task": "rerank",
            "price": PriceEntry(unit="1k documents", realtime=Decimal("0.5")),
            "pooling": "rank",
            "scores": "sigmoid",
            "dimensions": None,
            **changes,
        }
    )


def price(realtime, batch=None, unit="1M tokens"):
    return PriceEntry(
        unit=unit,
        realtime=Decimal(realtime),
        batch=None if batch is None else Decimal(batch),
    )


def spec(**changes):
    made = entry(**changes)
    return ModelSpec(entry=made, tariff=checked_tariff(made), path=Path("name.gguf"))


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "all-MiniLM-L6-v2", "BAAI/bge-small_v1.5", "0/0", "a" * 200])
def test_a_name_or_an_owner_and_a_name_is_an_id(name):
    assert ID_PATTERN.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "a/b/c",
        "../a",
        "a/..",
        ".",
        "-a",
        "a b",
        "a\n",
        "\na",
        "é",
        "a\x00b",
        "a\\b",
        "a:b",
    ],
)
def test_a_path_or_a_control_character_is_no_id(name):
    assert ID_PATTERN.fullmatch(name) is None


# -- fields against each other ------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        entry(),
        entry(matryoshka=(64, 128)),
        entry(aliases=("short", "other/name")),
        entry(pooling="cls"),
        rerank(),
        rerank(scores="as-is", segments=True),
        rerank(pooling="mean", scores="cosine"),
    ],
)
def test_an_entry_whose_fields_agree_has_a_tariff(good):
    assert checked_tariff(good).task == good.task


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(id="a b"), "id: 'a b' must look like"),
        (entry(aliases=("ok", "../x")), r"aliases: '\.\./x' must look like"),
        (entry(dimensions=None), "dimensions: is missing"),
        (entry(matryoshka=(64, 384)), "matryoshka: sizes must be smaller"),
        (entry(pooling="rank"), 'pooling: "rank" is for rerank models'),
        (entry(price=price("1", unit="1k documents")), 'price.unit: must be "1M tokens"'),
        (rerank(price=price("1")), 'price.unit: must be "1k documents" for rerank'),
        (rerank(scores=None), "scores: is missing"),
        (rerank(scores="cosine"), 'scores: "cosine" goes with vectors'),
        (rerank(pooling="mean"), 'scores: "cosine" goes with vectors'),
        (entry(price=price("-0.1")), "price.realtime: must be between 0 and 1000"),
        (entry(price=price("1000.1")), "price.realtime: must be between"),
        (entry(price=price("NaN")), "price.realtime: must be between"),
        (entry(price=price("1", "Infinity")), "price.batch: must be between"),
        (entry(price=price("1e999999999")), "price: is no number"),
        (entry(price=price("0.0000001")), r"price.realtime: is finer than 10\^-12 credits"),
        (entry(price=price("0.000001")), r"price.batch: is finer than 10\^-12 credits"),
        (rerank(price=price("1", "1e-10", "1k documents")), "price.batch: is finer"),
    ],
)
def test_fields_that_do_not_agree_are_refused_by_key(bad, message):
    with pytest.raises(ValueError, match=message):
        checked_tariff(bad)


# -- prices -------------------------------------------------------------------------------------


def test_a_price_is_exact_to_the_picocredit_of_one_token():
    tariff = checked_tariff(entry(price=price("0.008", "0.004")))
    assert (tariff.each("realtime"), tariff.each("batch")) == (8000, 4000)
    assert tariff.quote(1_000_000, tier="realtime") == 8_000_000_000


def test_the_batch_tier_is_half_the_price_where_none_is_given():
    assert checked_tariff(entry(price=price("0.009"))).batch == Decimal("0.0045")
    assert checked_tariff(entry(price=price("0.009", "0.009"))).batch == Decimal("0.009")
    assert checked_tariff(entry(price=price("0"))).batch == 0


# -- fingerprints -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"sha256": "b" * 64}, {"sha256": None}, {"pooling": "cls"}, {"max_input_tokens": 256}],
)
def test_the_fingerprint_changes_whenever_vectors_could(change):
    one = spec(sha256="a" * 64)
    assert len(one.fingerprint) == 16
    assert int(one.fingerprint, 16) >= 0
    assert spec(**{"sha256": "a" * 64, **change}).fingerprint != one.fingerprint


def test_the_fingerprint_changes_whenever_scores_could():
    def fingerprint(**changes):
        made = rerank(sha256="a" * 64, **changes)
        return ModelSpec(entry=made, tariff=checked_tariff(made), path=Path("x")).fingerprint

    assert len({fingerprint(), fingerprint(scores="as-is"), fingerprint(segments=True)}) == 3


def test_the_fingerprint_of_a_file_without_hash_is_its_name():
    assert spec(file="other.gguf").fingerprint != spec().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"price": price("1")},
        {"description": "x"},
        {"aliases": ("y",)},
        {"file": "moved.gguf"},
    ],
)
def test_the_fingerprint_keeps_when_only_words_and_prices_change(change):
    one = spec(sha256="a" * 64)
    assert spec(**{"sha256": "a" * 64, **change}).fingerprint == one.fingerprint


def test_a_spec_is_frozen():
    with pytest.raises(AttributeError):
        spec().path = Path("other")
    with pytest.raises(AttributeError):
        entry().id = "other"


def test_unknown_keys_are_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.convert({**msgspec.to_builtins(entry()), "colour": 1}, ModelEntry)

"""Decoders with the real library, against a forward pass of our own in float64."""

import json

import numpy as np
import pytest
from msgspec.structs import replace

from appliance.catalog import catalog, importer
from appliance.catalog.header_parser import read_header
from appliance.core.errors import InferenceFailed, LoadFailed
from appliance.engine.backend import EngineLimits
from appliance.engine.llama import decoder
from appliance.engine.llama import weights as llama_weights
from appliance.engine.llama.prefix import layout_apart
from appliance.engine.llama.tokenizer import LlamaTokenizer
from appliance.engine.llama.weights import LlamaWeights
from appliance.engine.loader import LlamaLoader
from appliance.engine.vectors import l2_normalise
from appliance.sequences.sequence import Frame, TokenSequence, frame_single
from appliance.settings import EngineSettings
from appliance.store.digests import sha256_of
from tests.decoders import (
    BPE,
    END,
    START,
    TINY,
    VOCABULARY,
    Shape,
    reference,
    reference_ranks,
    weights,
    write_decoder,
)

LIMITS = EngineLimits(ubatch_tokens_max=700, max_batch_tokens=256, sequences_max=64)
# Values are near 1; the library keeps keys and values in 16 bits.
CLOSE = 0.01
CLOSE_RANK = 0.002
SAME = 0.99999
LOADER = LlamaLoader(EngineSettings(calibrate=False), cores=1, tunings=None, clock=None)


def words(tokens):
    array = np.array(tokens, np.int32)
    return TokenSequence(array, len(array), truncated=False)


def noise(length, *, seed=0):
    return words(np.random.default_rng(seed).integers(0, len(VOCABULARY), length))


def cosines(one, two):
    return (l2_normalise(one) * l2_normalise(two)).sum(axis=1)


def expected(tensors, sequences):
    return np.array([reference(tensors, each.tokens)[-1] for each in sequences])


class Model:
    """A decoder with its float64 twin."""

    def __init__(self, path, *, pooling="last", limits=LIMITS, labels=None, **options):
        tied = options.pop("tied", True)
        self.tensors = weights(seed=3, labels=labels, tied=tied)
        write_decoder(path, self.tensors, pooling=pooling, **options)
        self.weights = LlamaWeights(path, pooling=pooling, limits=limits, segments=None)
        self.backend = self.weights.open_backend(limits, flash_attention=None)

    def compute(self, *sequences):
        return self.backend.compute(sequences, threads=1)

    def close(self):
        self.backend.close()
        self.weights.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    model = Model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    yield model
    model.close()


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranker") / "ranker.gguf"
    model = Model(path, pooling="rank", labels=2)
    yield model
    model.close()


# -- what is computed ---------------------------------------------------------------------------


def test_a_decoder_is_what_its_file_says(tiny, ranker):
    facts = tiny.weights.facts
    assert (facts.vocabulary, facts.width, facts.tokens_max) == (
        len(VOCABULARY),
        TINY.width,
        TINY.context,
    )
    assert ranker.weights.facts.width == 2


@pytest.mark.parametrize("length", [1, 2, 5, decoder.ONE_PHASE_TOKENS, 17, 63, 64, 65, 128])
def test_vectors_are_the_references(tiny, length):
    sequence = noise(length, seed=length)
    found = tiny.compute(sequence)
    assert found.dtype == np.float32
    assert np.abs(found - expected(tiny.tensors, [sequence])).max() < CLOSE


@pytest.mark.parametrize("flash_attention", [None, False, True])
def test_vectors_are_the_references_with_and_without_flash_attention(tiny, flash_attention):
    backend = tiny.weights.open_backend(LIMITS, flash_attention=flash_attention)
    sequences = [noise(length, seed=length) for length in (1, 9, 70, 128)]
    try:
        found = backend.compute(sequences, threads=2)
    finally:
        backend.close()
    assert np.abs(found - expected(tiny.tensors, sequences)).max() < CLOSE


def test_a_model_with_an_output_matrix_of_its_own_has_the_references_vectors(tmp_path):
    model = Model(tmp_path / "untied.gguf", tied=False)
    try:
        found = model.compute(noise(40))
        assert np.abs(found - expected(model.tensors, [noise(40)])).max() < CLOSE
    finally:
        model.close()


@pytest.mark.parametrize("length", [1, decoder.ONE_PHASE_TOKENS, 17, 128])
def test_ranks_are_the_references_probabilities(ranker, length):
    [found] = ranker.compute(noise(length, seed=length))
    assert found.sum() == pytest.approx(1, abs=1e-5)
    wanted = reference_ranks(ranker.tensors, noise(length, seed=length).tokens)
    assert found == pytest.approx(wanted, abs=CLOSE_RANK)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_other_poolings_read_every_token(tmp_path, pooling):
    model = Model(tmp_path / "tiny.gguf", pooling=pooling)
    shared = noise(20).tokens
    sequences = [noise(1), noise(128, seed=1), words([*shared, 1]), words([*shared, 2, 3])]
    try:
        found = model.compute(*sequences)
    finally:
        model.close()
    for row, sequence in zip(found, sequences, strict=True):
        states = reference(model.tensors, sequence.tokens)
        wanted = states.mean(axis=0) if pooling == "mean" else states[0]
        assert np.abs(row - wanted).max() < CLOSE


# -- company ------------------------------------------------------------------------------------

PREFIX = noise(40, seed=77).tokens.tolist()
BATCHES = {
    "one token": [[5]],
    "one token each": [[token] for token in range(64)],
    "the same token": [[5]] * 64,
    "strangers": [noise(n, seed=n).tokens for n in (1, 128, 2, 30, 31, 100)],
    "small": [noise(n, seed=n).tokens for n in (1, 2, 3)],
    "a query and its documents": [[*PREFIX, *noise(n, seed=n).tokens] for n in (3, 1, 88, 17)],
    "two queries in turns": [
        [*(PREFIX if n % 2 else PREFIX[::-1]), *noise(n + 1, seed=n).tokens] for n in range(8)
    ],
    "a beginning of another": [[*PREFIX, 1], PREFIX, PREFIX[:1], [*PREFIX, 1, 2], PREFIX],
    "branches of branches": [PREFIX[:n] + [n] * 5 for n in (40, 30, 20, 10, 30, 0)],
    "the same": [PREFIX] * 5,
    "several pieces": [noise(n, seed=n).tokens for n in (128, 127, 126, 125, 128, 60)],
}


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
def test_a_text_has_the_same_vector_in_any_company(tiny, rows):
    sequences = [words(row) for row in rows]
    together = tiny.compute(*sequences)
    assert np.abs(together - expected(tiny.tensors, sequences)).max() < CLOSE
    alone = np.concatenate([tiny.compute(each) for each in sequences[:8]])
    assert cosines(together[:8], alone).min() > SAME


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
def test_ranks_are_the_references_in_any_company(ranker, rows):
    found = ranker.compute(*map(words, rows))
    wanted = np.array([reference_ranks(ranker.tensors, row) for row in rows])
    assert np.abs(found - wanted).max() < CLOSE_RANK


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("name", ["tiny", "ranker"])
def test_neither_two_phases_nor_shared_beginnings_change_an_answer(
    request, monkeypatch, name, rows
):
    model = request.getfixturevalue(name)
    for bound in ("ONE_PHASE_TOKENS", "DECODER_UBATCH_TOKENS"):
        monkeypatch.setattr(decoder, bound, LIMITS.ubatch_tokens_max)
    backend = model.weights.open_backend(LIMITS, flash_attention=None)
    sequences = [words(row) for row in rows]
    shared = decoder.layout_shared
    found = {}
    try:
        for phases in (1, 2):
            backend._one_phase_tokens = LIMITS.ubatch_tokens_max if phases == 1 else 0
            for layout in (shared, lambda tokens: layout_apart(len(tokens))):
                monkeypatch.setattr(decoder, "layout_shared", layout)
                found[phases, layout is shared] = backend.compute(sequences, threads=1)
    finally:
        backend.close()
    plain = found.pop((1, False))
    for other in found.values():
        assert cosines(other, plain).min() > SAME


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3"])
@pytest.mark.parametrize("flash_attention", [None, False])
def test_vectors_of_the_other_architectures_are_the_references(
    tmp_path, architecture, flash_attention
):
    shape = Shape(head=8, architecture=architecture, blocks=7)
    tensors = weights(shape, seed=1)
    path = write_decoder(tmp_path / "other.gguf", tensors, shape)
    model = LlamaWeights(path, pooling="last", limits=LIMITS, segments=None)
    backend = model.open_backend(LIMITS, flash_attention=flash_attention)
    rows = [[*PREFIX, *noise(n, seed=n).tokens] for n in (1, 5, 60)] + [[1], noise(128).tokens]
    try:
        found = backend.compute([words(row) for row in rows], threads=1)
    finally:
        backend.close()
        model.close()
    wanted = np.array([reference(tensors, row, shape)[-1] for row in rows])
    assert np.abs(found - wanted).max() < CLOSE


def test_a_batch_does_not_remember_the_one_before(tiny):
    first = tiny.compute(noise(20, seed=1))
    tiny.compute(*(noise(128, seed=n) for n in range(5)))
    tiny.compute(*(noise(8, seed=n) for n in range(64)))
    np.testing.assert_array_equal(tiny.compute(noise(20, seed=1)), first)


def test_numbers_that_are_not_finite_fail_the_batch_alone(tmp_path):
    """Zero times NaN is NaN: what stays in masked cells would fail every batch after."""
    tensors = weights(seed=1)
    tensors["token_embd"][40] = np.nan
    path = write_decoder(tmp_path / "tiny.gguf", tensors)
    for flash_attention in (None, False):
        model = LlamaWeights(path, pooling="last", limits=LIMITS, segments=None)
        backend = model.open_backend(LIMITS, flash_attention=flash_attention)
        try:
            for _ in range(2):
                with pytest.raises(InferenceFailed, match="not finite"):
                    backend.compute([words([40] * 100)], threads=1)
                found = backend.compute([words([1, 41, 2])], threads=1)
                wanted = reference(tensors, [1, 41, 2])[-1]
                assert np.abs(found - wanted).max() < CLOSE
        finally:
            backend.close()
            model.close()


# -- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sequences",
    [
        [],
        [words([])],
        [words([len(VOCABULARY)])],
        [words([-1])],
        [noise(129)],
        [noise(128)] * 5 + [noise(61)],
        [words([1])] * 65,
    ],
    ids=["none", "empty", "too high", "too low", "too long", "too many tokens", "too many"],
)
def test_what_llama_cpp_would_abort_on_never_reaches_it(tiny, sequences):
    with pytest.raises(AssertionError):
        tiny.compute(*sequences)
    assert tiny.compute(words([1, 2])).shape == (1, TINY.width)


def test_a_batch_at_every_limit_is_computed(tiny):
    sequences = [noise(11, seed=n) for n in range(59)] + [
        noise(n, seed=n) for n in (1, 2, 3, 4, 41)
    ]
    assert (len(sequences), sum(map(len, sequences))) == (64, 700)
    found = tiny.compute(*sequences)
    assert np.abs(found - expected(tiny.tensors, sequences)).max() < CLOSE


@pytest.mark.parametrize(("ubatch", "sequences_max"), [(1, 1), (1, 64), (2, 2), (20, 64), (256, 1)])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_small_limits_are_kept(tmp_path, ubatch, sequences_max, pooling):
    limits = EngineLimits(ubatch, 1, sequences_max)
    model = Model(tmp_path / "tiny.gguf", pooling=pooling, limits=limits)
    try:
        count = min(ubatch, sequences_max)
        found = model.compute(*(words([n]) for n in range(count)))
        assert (
            np.abs(found - expected(model.tensors, [words([n]) for n in range(count)])).max()
            < CLOSE
        )
        longest = noise(min(ubatch, TINY.context))
        assert model.compute(longest).shape == (1, TINY.width)
        with pytest.raises(AssertionError):
            model.compute(noise(ubatch + 1))
    finally:
        model.close()


def test_a_sequence_longer_than_a_piece_of_the_cache_is_the_references(tmp_path):
    shape = Shape(context=1500, blocks=2)
    limits = EngineLimits(ubatch_tokens_max=1500, max_batch_tokens=256, sequences_max=64)
    tensors = weights(shape, seed=1)
    path = write_decoder(tmp_path / "long.gguf", tensors, shape)
    model = LlamaWeights(path, pooling="last", limits=limits, segments=None)
    backend = model.open_backend(limits, flash_attention=None)
    try:
        for length in (decoder.DECODER_UBATCH_TOKENS, decoder.DECODER_UBATCH_TOKENS + 1, 1500):
            found = backend.compute([noise(length)], threads=1)
            assert np.abs(found - reference(tensors, noise(length).tokens, shape)[-1]).max() < CLOSE
    finally:
        backend.close()
        model.close()


def test_a_backend_can_be_closed_twice(tmp_path):
    model = Model(tmp_path / "tiny.gguf")
    model.close()
    model.close()
    with pytest.raises(AssertionError):
        model.compute(words([1]))


def test_two_backends_of_one_model_do_not_meet(tiny):
    other = tiny.weights.open_backend(LIMITS, flash_attention=None)
    try:
        before = tiny.compute(noise(30, seed=1))
        other.compute([noise(90, seed=2)], threads=1)
        np.testing.assert_array_equal(tiny.compute(noise(30, seed=1)), before)
    finally:
        other.close()


def test_computing_logs_nothing(tiny, caplog, capfd):
    with caplog.at_level("DEBUG", "gigarouter.llama"):
        tiny.compute(noise(50), noise(3))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


# -- what is refused ----------------------------------------------------------------------------


def test_a_decoder_that_sees_what_follows_is_refused(tmp_path):
    path = write_decoder(tmp_path / "tiny.gguf", weights(seed=1), more={"attention.causal": False})
    model = LlamaWeights(path, pooling="last", limits=LIMITS, segments=None)
    try:
        with pytest.raises(LoadFailed, match="causal attention only"):
            model.open_backend(LIMITS, flash_attention=None)
    finally:
        model.close()


def test_a_model_with_a_cache_whose_kind_is_not_known_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_weights, "DECODERS", frozenset())
    path = write_decoder(tmp_path / "tiny.gguf", weights(seed=1))
    model = LlamaWeights(path, pooling="last", limits=LIMITS, segments=None)
    try:
        with pytest.raises(LoadFailed, match="qwen3 models are not served; they keep a state"):
            model.open_backend(LIMITS, flash_attention=None)
    finally:
        model.close()


def spec_of(path, **changes):
    """The catalogue entry that `models add` would write for a file, with changes."""
    entry = importer.describe(read_header(path), name="tiny", file=path.name, task=None)
    lines = {**entry, "sha256": sha256_of(path), **changes}
    price = lines.pop("price")
    price = f'price = {{ unit = "{price["unit"]}", realtime = {price["realtime"]} }}'
    body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
    own = path.parent / "models.toml"
    own.write_text(f"schema = 1\n[[model]]\n{body}\n{price}\n")
    return catalog.load(path.parent / "none.toml", own, path.parent).find("tiny")


def test_a_decoder_whose_head_says_other_words_is_refused_by_the_loader(tmp_path):
    spec = spec_of(write_decoder(tmp_path / "tiny.gguf", weights(seed=1)))
    write_decoder(spec.path, weights(seed=1, labels=2), pooling="rank")
    entry = replace(spec.entry, pooling="rank", task="rerank", scores="as-is", sha256=None)
    with pytest.raises(LoadFailed, match=r"its head says .*label-0"):
        LOADER.open_weights(replace(spec, entry=entry))


# -- texts --------------------------------------------------------------------------------------


def tokenizer_of(tmp_path, **changes):
    tokenizer = {key: value for key, value in {**BPE, **changes}.items() if value is not None}
    path = write_decoder(tmp_path / "tiny.gguf", weights(seed=1), tokenizer=tokenizer)
    return LlamaTokenizer(path)


EOS, BOS = VOCABULARY.index(END), VOCABULARY.index(START)


@pytest.mark.parametrize(
    ("changes", "frame"),
    [
        ({}, Frame(None, EOS)),
        ({"add_bos_token": True}, Frame(BOS, EOS)),
        ({"add_eos_token": False}, Frame(None, None)),
        ({"add_bos_token": None, "add_eos_token": None}, Frame(None, None)),
        # GPT-4o's pre-tokenizer and the like say by their name alone that a text is opened.
        ({"add_bos_token": None, "pre": "llama3"}, Frame(BOS, EOS)),
        ({"add_bos_token": True, "add_eos_token": False}, Frame(BOS, None)),
    ],
)
def test_a_text_is_framed_as_the_file_says_or_as_is_usual_for_its_kind(tmp_path, changes, frame):
    tokenizer = tokenizer_of(tmp_path, **changes)
    try:
        assert tokenizer.frame() == frame
    finally:
        tokenizer.close()


def test_the_encoder_of_a_decoder_frames_and_cuts_as_the_model_was_trained(tmp_path):
    spec = spec_of(write_decoder(tmp_path / "tiny.gguf", weights(seed=1)))
    encoder = LOADER.open_encoder(spec)
    assert (encoder.frame, encoder.tokens_max) == (Frame(None, EOS), TINY.context)
    [tokens] = encoder.tokenizer.encode(["the cat sat\n"])
    pieces = ["the", "\u0120cat", "\u0120sat", "\u010a"]
    assert tokens.tolist() == [VOCABULARY.index(piece) for piece in pieces]
    framed = frame_single(tokens, encoder.frame, tokens_max=3)
    assert framed.tokens.tolist() == [*tokens[:2].tolist(), EOS]


def test_no_text_can_spell_a_special_token(tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    try:
        [found] = tokenizer.encode([f"{END} the {START}"])
        assert not {EOS, BOS} & set(found.tolist())
        assert (
            "".join(VOCABULARY[token] for token in found)
            == "<|endoftext|>\u0120the\u0120<|startoftext|>"
        )
    finally:
        tokenizer.close()


# -- from end to end ----------------------------------------------------------------------------


def test_a_decoder_that_was_added_embeds_over_http(make_server, tmp_path):
    tensors = weights(seed=5)
    path = write_decoder(tmp_path / "tiny-qwen.gguf", tensors)
    server = make_server()
    done = server.cli("models", "add", str(path), "--id", "test/tiny-qwen", "--json")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["id"], view["task"], view["available"]) == ("test/tiny-qwen", "embeddings", True)
    server.start()
    texts = ["the cat", "the cat sat", "x" * 500, " "]
    rows = [["the", "\u0120cat"], ["the", "\u0120cat", "\u0120sat"], ["x"] * 127, ["\u0120"]]
    tokens = [[*(VOCABULARY.index(piece) for piece in row), EOS] for row in rows]
    with server.client() as client:
        client.headers["prefer"] = "wait=30"
        answer = client.post("/v1/embeddings", json={"model": "test/tiny-qwen", "input": texts})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["usage"]["prompt_tokens"] == sum(map(len, tokens))
    found = np.array([item["embedding"] for item in body["data"]])
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    wanted = expected(tensors, [words(row) for row in tokens])
    assert np.abs(found - l2_normalise(wanted.astype(np.float32))).max() < 0.002
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()

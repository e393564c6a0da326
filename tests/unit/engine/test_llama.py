"""The one door to llama.cpp, with the real library, the starter model and tiny models."""

import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from appliance.catalog import catalog, importer
from appliance.catalog.convert import convert_folder
from appliance.catalog.header_parser import read_header
from appliance.core.clock import SystemClock
from appliance.core.errors import InferenceFailed, InvalidModelFile, LoadFailed
from appliance.engine.backend import EngineLimits
from appliance.engine.llama.tokenizer import LlamaTokenizer
from appliance.engine.llama.weights import LlamaWeights
from appliance.engine.loader import LlamaLoader
from appliance.engine.reference_tokenizer import reference_tokenizer
from appliance.engine.tokenizer import WordPieceTokenizer
from appliance.engine.vectors import l2_normalise
from appliance.sequences.sequence import Frame, TokenSequence, frame_pair, frame_single
from appliance.settings import EngineSettings
from appliance.store.digests import sha256_of
from tests.kernels import supported, using
from tests.models import CONTEXT, HIDDEN, VOCABULARY, write_tiny_gguf

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden"
LOADER = LlamaLoader(EngineSettings(calibrate=False), cores=1, tunings=None, clock=SystemClock())
TINY = EngineLimits(ubatch_tokens_max=256, max_batch_tokens=256, sequences_max=64)
SAME = 0.9999


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


STARTER = catalog.load(catalog.shipped_path(), Path("none.toml"), Path("none")).find(
    "all-minilm-l6-v2"
)


class Opened:
    """Weights with one backend; one thread: on a busy machine two wait at every barrier."""

    def __init__(self, weights, *, flash_attention=None):
        self.weights = weights
        self.facts, self.limits = weights.facts, weights.limits
        try:
            self.backend = weights.open_backend(weights.limits, flash_attention=flash_attention)
        except BaseException:
            weights.close()
            raise

    def compute(self, sequences, *, threads=1):
        return self.backend.compute(sequences, threads=threads)

    def close(self):
        self.backend.close()
        self.weights.close()


def open_backend(spec):
    return Opened(LOADER.open_weights(spec))


@pytest.fixture(scope="module")
def starter():
    backend = open_backend(STARTER)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def encoder():
    return LOADER.open_encoder(STARTER)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", seed=3)
    backend = open_backend(spec_of(path))
    yield backend
    backend.close()


def words(*tokens):
    array = np.array(tokens, np.int32)
    return TokenSequence(array, len(array), truncated=False)


def noise(length, *, seed=0, vocabulary=30_522):
    """A sequence as long as told, of tokens that differ with the seed."""
    tokens = np.random.default_rng(seed).integers(1000, vocabulary, length).astype(np.int32)
    return TokenSequence(tokens, length, truncated=False)


def tiny_noise(length, *, seed=0):
    tokens = np.random.default_rng(seed).integers(0, len(VOCABULARY), length).astype(np.int32)
    return TokenSequence(tokens, length, truncated=False)


def cosines(one, two):
    return (l2_normalise(one) * l2_normalise(two)).sum(axis=1)


# -- what is computed ---------------------------------------------------------------------------


@pytest.fixture(params=supported())
def kernels(request):
    """Compute with the kernels of each instruction set that this processor has."""
    with using(request.param):
        yield


with_all_kernels = pytest.mark.usefixtures("kernels")


def test_the_starter_is_what_its_catalogue_entry_says(starter):
    assert starter.facts.vocabulary == 30_522
    assert starter.facts.width == STARTER.entry.dimensions == 384
    assert starter.facts.tokens_max == 512
    assert STARTER.entry.max_input_tokens == 256  # what sentence-transformers gives it
    assert starter.limits == EngineLimits(
        ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64
    )


@with_all_kernels
def test_vectors_are_the_references(starter, encoder):
    items = json.loads((GOLDEN / "all-minilm-l6-v2.json").read_text("utf-8"))["items"]
    assert len(items) > 10
    for item in items:
        [tokens] = encoder.tokenizer.encode([item["text"]])
        found = starter.compute([frame_single(tokens, encoder.frame, tokens_max=512)])
        assert cosines(found, np.array([item["embedding"]], np.float32)) >= SAME, item["text"][:40]


def token_rows(backend, sequence):
    """Each token's row by the library's own context without pooling, float32[n_tokens, width]."""
    context = backend.backend._context
    batch = llama_cpp.llama_batch_init(len(sequence), 0, 1)
    try:
        batch.n_tokens = len(sequence)
        for index, token in enumerate(sequence.tokens.tolist()):
            batch.token[index], batch.pos[index], batch.logits[index] = token, index, 1
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        assert llama_cpp.llama_encode(context, batch) == 0
        rows = [llama_cpp.llama_get_embeddings_ith(context, n) for n in range(len(sequence))]
        width = backend.facts.width
        return np.array([np.ctypeslib.as_array(row, (width,)) for row in rows])
    finally:
        llama_cpp.llama_batch_free(batch)


@with_all_kernels
def test_a_part_of_a_text_has_the_mean_of_its_tokens_read_in_the_whole_text(starter):
    parts = (3, 1, 40, 2, 154)
    whole = noise(200, seed=9)
    others = [noise(30, seed=1), noise(10, seed=2)]
    found = starter.compute([others[0], replace(whole, parts=parts), others[1]])
    assert found.shape == (len(parts) + 2, 384)
    rows = token_rows(starter, whole)
    ends = np.cumsum(parts)
    means = [rows[end - part : end].mean(axis=0) for part, end in zip(parts, ends, strict=True)]
    assert (cosines(found[1:-1], np.array(means)) >= SAME).all()
    assert (cosines(found[[0, -1]], starter.compute(others)) >= SAME).all()
    # The parts together are the text, and alone each would be something else.
    weighted = found[1:-1] * np.array(parts)[:, None]
    assert cosines(weighted.sum(0, keepdims=True), starter.compute([whole])) >= SAME
    alone = starter.compute([replace(whole, tokens=whole.tokens[4:44], segment_b=40)])
    assert cosines(found[3:4], alone) < 0.99


def test_the_mean_is_the_librarys_own(starter):
    """The library pools where we do not: both are the same vectors."""
    sequences = [noise(length, seed=length) for length in (1, 2, 60, 180)]
    weights = LlamaWeights(STARTER.path, pooling="mean", limits=starter.limits, segments=None)
    weights._averages = False
    theirs = Opened(weights)
    try:
        np.testing.assert_allclose(
            theirs.compute(sequences), starter.compute(sequences), rtol=1e-4, atol=1e-6
        )
    finally:
        theirs.close()


def test_parts_that_are_not_the_sequence_never_reach_the_library(starter):
    for parts in ((3, 3), (5, 0), (6,)):
        with pytest.raises(AssertionError):
            starter.compute([replace(noise(5), parts=parts)])


@pytest.mark.parametrize("length", [1, 2, 511, 512])
def test_sequences_at_the_boundaries_of_a_call_are_computed(starter, length):
    found = starter.compute([noise(length)])
    assert found.shape == (1, 384)
    assert np.isfinite(found).all()


@with_all_kernels
@pytest.mark.parametrize(
    "lengths",
    [
        (1, 511),
        (511, 1),
        (2, 510),
        (1, 2, 509),
        (256, 256),
        (1,) * 64,
        (8,) * 64,
        (2, 3, 5, 7, 100),
    ],
    ids=str,
)
def test_a_text_has_the_same_vector_in_any_company(starter, lengths):
    sequences = [noise(length, seed=seed) for seed, length in enumerate(lengths)]
    together = starter.compute(sequences)
    probes = {0, 1, len(lengths) // 2, len(lengths) - 1}
    for index in probes & set(range(len(lengths))):
        alone = starter.compute([sequences[index]])
        assert cosines(together[index : index + 1], alone) >= SAME


@with_all_kernels
@pytest.mark.parametrize("flash_attention", [None, False, True])
def test_the_kind_of_attention_changes_no_vector(starter, flash_attention):
    sequences = [noise(length, seed=length) for length in (3, 40, 200)]
    backend = starter.weights.open_backend(starter.limits, flash_attention=flash_attention)
    try:
        found = backend.compute(sequences, threads=1)
    finally:
        backend.close()
    assert (cosines(found, starter.compute(sequences)) >= SAME).all()


def test_two_contexts_on_two_threads_give_the_rows_of_one(starter):
    batches = [
        [noise(1 + (7 * number + n) % 60, seed=100 * number + n) for n in range(1 + number % 6)]
        for number in range(15)
    ]
    expected = [starter.compute(each) for each in batches]
    together = threading.Barrier(2)

    def compute(reverse):
        backend = starter.weights.open_backend(starter.limits, flash_attention=None)
        try:
            together.wait(60)
            found = [backend.compute(each, threads=1) for each in batches[:: -1 if reverse else 1]]
        finally:
            backend.close()
        return found[:: -1 if reverse else 1]

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(compute, [False, True]):
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_vector(starter, threads):
    sequences = [noise(50, seed=n) for n in range(4)]
    found = starter.compute(sequences, threads=threads)
    np.testing.assert_allclose(found, starter.compute(sequences), rtol=1e-4, atol=1e-5)


def test_a_side_workers_context_takes_no_more_than_it_was_opened_for(starter):
    narrow = EngineLimits(ubatch_tokens_max=100, max_batch_tokens=100, sequences_max=4)
    backend = starter.weights.open_backend(narrow, flash_attention=None)
    try:
        assert backend.limits == narrow
        for sequences in ([noise(101)], [noise(60), noise(41)], [words(1)] * 5):
            with pytest.raises(AssertionError):
                backend.compute(sequences, threads=1)
        found = backend.compute([noise(60), noise(40, seed=1)], threads=1)
        same = starter.compute([noise(60), noise(40, seed=1)])
        assert (cosines(found, same) >= SAME).all()
    finally:
        backend.close()


def test_a_batch_does_not_remember_the_one_before(starter):
    first = starter.compute([noise(20, seed=1)])
    starter.compute([noise(512, seed=2)])
    starter.compute([noise(8, seed=n) for n in range(64)])
    np.testing.assert_allclose(starter.compute([noise(20, seed=1)]), first, rtol=1e-4, atol=1e-6)


def test_results_are_copies(starter):
    first = starter.compute([noise(20, seed=1)])
    kept = first.copy()
    starter.compute([noise(20, seed=2)])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "sequences",
    [[], [words(30_522)], [words(-1)], [noise(513)], [noise(300), noise(213)], [words(1)] * 65],
    ids=["none", "token too high", "token too low", "too long", "too many tokens", "too many"],
)
def test_what_llama_cpp_would_abort_on_never_reaches_it(starter, sequences):
    with pytest.raises(AssertionError):
        starter.compute(sequences)
    assert starter.compute([words(101, 102)]).shape == (1, 384)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_more_than_a_thousand_batches_do_not_leak(starter, tiny):
    """A leak of the arrays behind one batch would be 6 MB, of a context's buffers far more."""

    def compute(batches):
        for seed in range(batches):
            tiny.compute([tiny_noise(1 + (seed + n) % CONTEXT, seed=n) for n in range(2)])
            if seed % 10 == 0:
                starter.compute([noise(1 + (seed + n) % 4, seed=n) for n in range(2)])

    compute(100)
    before = resident_bytes()
    compute(1200)
    assert resident_bytes() - before < 4_000_000


def test_numbers_that_are_not_finite_fail_the_batch_alone(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    rows = read_header(path).tensors["token_embd.weight"]
    raw = bytearray(path.read_bytes())
    at = rows.offset + 40 * HIDDEN * 2
    raw[at : at + 2] = np.array([np.nan], "<f2").tobytes()
    path.write_bytes(raw)
    backend = open_backend(spec_of(path))
    try:
        with pytest.raises(InferenceFailed, match="not finite"):
            backend.compute([words(1, 40, 2)])
        assert np.isfinite(backend.compute([words(1, 41, 2)])).all()
    finally:
        backend.close()


# -- rerank heads -------------------------------------------------------------------------------


@with_all_kernels
def test_logits_of_a_cross_encoder_are_the_references_segments_included(tmp_path):
    path = tmp_path / "tiny.gguf"
    convert_folder(GOLDEN / "tiny-cross-encoder", path)
    spec = spec_of(path)
    assert spec.entry.segments
    backend, blind = open_backend(spec), open_backend(spec_of(path, segments=False))
    encoder = LOADER.open_encoder(spec)
    try:
        for item in json.loads((GOLDEN / "tiny-cross-encoder.json").read_text("utf-8"))["items"]:
            query, document = encoder.tokenizer.encode([item["query"], item["document"]])
            pair = frame_pair(query, document, encoder.frame, tokens_max=512)
            assert len(pair) == item["tokens"]
            short = [frame_pair(query[:5], query[:3], encoder.frame, tokens_max=512)]
            company = short if len(pair) <= 490 else []
            logit = backend.compute([*company, pair])[-1, 0]
            assert logit == pytest.approx(item["logit"], abs=0.02)
            ignored = blind.compute([pair])[0, 0]
            assert ignored == pytest.approx(item["logit_if_segments_were_ignored"], abs=0.02)
    finally:
        backend.close()
        blind.close()


def test_a_head_with_several_outputs_is_read_within_its_bounds(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=5, labels=3)
    backend = Opened(LlamaWeights(path, pooling="rank", limits=TINY, segments=None))
    try:
        assert backend.facts.width == 3
        assert backend.compute([tiny_noise(9, seed=n) for n in range(5)]).shape == (5, 3)
    finally:
        backend.close()


# -- files that are refused ---------------------------------------------------------------------


def refused(spec, error, match):
    with pytest.raises(error, match=match):
        open_backend(spec)


def test_a_model_without_a_head_is_no_reranker(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    changes = {"task": "rerank", "pooling": "rank", "scores": "sigmoid"}
    entry = spec_of(path).entry
    ranked = spec_of(path, price={"unit": "1k documents", "realtime": "0.008"}, **changes)
    assert entry.pooling == "mean"
    refused(ranked, LoadFailed, "has no classification head; it cannot rerank")


def test_a_file_that_is_not_the_catalogues_is_refused(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    refused(spec_of(path, sha256="0" * 64), LoadFailed, r"not the file .* \(sha256\)")


def repeat_a_token(path):
    """Spell one token of a file as another one."""
    raw = path.read_bytes()
    assert raw.count("\u2581cat".encode()) == 1
    path.write_bytes(raw.replace("\u2581cat".encode(), "\u2581sat".encode()))
    return path


def test_a_vocabulary_with_a_token_twice_never_reaches_llama_cpp(tmp_path):
    """It would abort the process: see the test after this one."""
    spec = spec_of(repeat_a_token(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)))
    refused(spec, LoadFailed, "has a token twice in its vocabulary")
    with pytest.raises(LoadFailed, match="has a token twice in its vocabulary"):
        LOADER.open_encoder(spec)


ABORT = """
import resource, sys
from pathlib import Path
from appliance.engine.llama.tokenizer import LlamaTokenizer
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
LlamaTokenizer(Path(sys.argv[1]))
"""


def test_llama_cpp_still_aborts_on_a_token_twice(tmp_path):
    """When this fails the library has learned to refuse, and our own check may go."""
    path = repeat_a_token(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    ended = subprocess.run(
        [sys.executable, "-c", ABORT, str(path)],
        cwd=ROOT,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -6


def test_a_tokenizer_of_another_kind_is_opened_only_from_the_catalogues_file(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    raw = path.read_bytes()
    assert raw.count(b"tokenizer.ggml.unknown_token_id") == 1
    path.write_bytes(raw.replace(b"ggml.unknown_token_id", b"ggml.unknown_token_no"))
    spec = spec_of(path)
    assert reference_tokenizer(read_header(path).metadata) is None
    assert isinstance(LOADER.open_encoder(spec).tokenizer, LlamaTokenizer)
    with pytest.raises(LoadFailed, match="sha256"):
        LOADER.open_encoder(spec_of(path, sha256="0" * 64))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: raw[: len(raw) - 1], id="one byte short"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="half of it"),
        pytest.param(lambda raw: raw[:30], id="the first thirty bytes"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda raw: bytes(len(raw)), id="zeros"),
        pytest.param(lambda raw: np.random.default_rng(1).bytes(len(raw)), id="noise"),
        pytest.param(lambda raw: b"PK\x03\x04" + raw[4:], id="another format"),
    ],
)
def test_a_damaged_file_is_refused_and_the_process_lives(tmp_path, tiny, damage):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    spec = spec_of(path, sha256="0" * 64)
    path.write_bytes(damage(path.read_bytes()))
    refused(spec, InvalidModelFile, "tiny.gguf")
    with pytest.raises(InvalidModelFile):
        LOADER.open_encoder(spec)
    assert tiny.compute([words(1, 2)]).shape == (1, HIDDEN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            b"\x04\0\0\0\0\0\0\0bert", b"\x04\0\0\0\0\0\0\0burt", id="unknown architecture"
        ),
        pytest.param(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight", id="a missing tensor"),
        pytest.param(b"bert.embedding_length", b"bert.embedding_lengty", id="a missing number"),
    ],
)
def test_a_file_that_llama_cpp_refuses_is_a_load_that_failed(tmp_path, tiny, old, new):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    spec = spec_of(path)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(LoadFailed, match="the log says why"):
        LlamaWeights(spec.path, pooling="mean", limits=tiny.limits, segments=None)
    assert tiny.compute([words(1, 2)]).shape == (1, HIDDEN)


def test_a_backend_can_be_closed_twice(tmp_path):
    backend = open_backend(spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)))
    backend.close()
    backend.close()
    with pytest.raises(AssertionError):
        backend.compute([words(1, 2)])


# -- the library's log --------------------------------------------------------------------------


def test_the_librarys_log_of_a_load_arrives_in_ours_line_by_line(tmp_path, caplog, capfd):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    with caplog.at_level(logging.DEBUG, "gigarouter.llama"):
        open_backend(spec_of(path)).close()
    lines = [record for record in caplog.records if record.name == "gigarouter.llama"]
    assert any("general.architecture" in record.getMessage() for record in lines)
    assert all("\n" not in record.getMessage() for record in lines)
    assert all(record.levelno < logging.ERROR for record in lines)
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_library_is_an_error_in_our_log(tmp_path, caplog, capfd):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    path.write_bytes(path.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"))
    with caplog.at_level(logging.DEBUG, "gigarouter.llama"), pytest.raises(LoadFailed):
        open_backend(spec_of(path))
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert any("blk.1.attn_q.weight" in record.getMessage() for record in errors)
    assert capfd.readouterr() == ("", "")


def test_computing_logs_nothing(starter, caplog, capfd):
    with caplog.at_level(logging.DEBUG, "gigarouter.llama"):
        starter.compute([noise(5)])
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


# -- llama.cpp's own tokenizer, the fallback ----------------------------------------------------


@pytest.fixture(scope="module")
def fallback():
    tokenizer = LlamaTokenizer(STARTER.path)
    yield tokenizer
    tokenizer.close()


ORDINARY = {
    "english": "The quick brown fox jumps over the lazy dog, isn't it?",
    "accents": "Crème brûlée, naïve façade, Ångström, São Paulo, Žižek",
    "german": "Donaudampfschifffahrtsgesellschaftskapitänsmütze, Straße",
    "greek": "Ὀδυσσεύς άνθρωπος",
    "cyrillic": "Съешь ещё этих мягких французских булок",
    "hebrew": "עולם בראשית",
    "arabic": "مرحبا بالعالم",
    "chinese": "北京是中国的首都。",
    "japanese": "東京タワーは高いです。カタカナ ひらがな",
    "emoji": "I 😀 love 🍕🍕 and ©®™ ≤≥≠",
    "code": "def f(x: int) -> int:\n\treturn x**2 + 3  # no_op",
    "url": "https://example.org/a_b-c?d=e&f=%20#g user@example.org",
    "numbers": "1,234,567.89 0xDEADBEEF 2024-05-06T07:08:09Z",
    "whitespace": "  a \t b\r\n\n c  ",
    "100 letters": "a" * 100,
    "empty": "",
}


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY.keys())
def test_the_fallback_agrees_with_the_reference_on_ordinary_texts(fallback, encoder, text):
    [ours], [theirs] = fallback.encode([text]), encoder.tokenizer.encode([text])
    assert ours.dtype == np.int32
    assert ours.tolist() == theirs.tolist()


# Where llama.cpp's WordPiece is not the reference's. Each row is why it is only a fallback; one
# that fails here has been mended there.
DIFFERENT = {
    "a word of 101 letters": "a" * 101,
    "syllables of hangul": "안녕하세요 세계",
    "marks of devanagari": "नमस्ते दुनिया हिन्दी",
}


@pytest.mark.parametrize("text", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_where_the_two_differ_the_starter_is_tokenized_as_the_reference_does(
    fallback, encoder, text
):
    assert isinstance(encoder.tokenizer, WordPieceTokenizer)
    [ours], [theirs] = encoder.tokenizer.encode([text]), fallback.encode([text])
    assert ours.tolist() != theirs.tolist()


def test_a_word_of_more_than_100_letters_is_unknown_to_the_reference(encoder):
    assert encoder.tokenizer.encode(["a" * 101])[0].tolist() == [100]


def test_no_text_can_spell_a_special_token_to_the_fallback(fallback):
    rows = fallback.encode(["[CLS] one [SEP] two [MASK] [PAD] [UNK]", "[SEP]"])
    assert not {101, 102, 103, 0} & set(np.concatenate(rows).tolist())


def test_the_fallback_frees_its_vocabulary_once(tmp_path):
    tokenizer = LlamaTokenizer(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    assert tokenizer.encode(["the cat"])[0].tolist() == [
        VOCABULARY.index("the"),
        VOCABULARY.index("cat"),
    ]
    tokenizer.close()
    tokenizer.close()


def test_the_frame_is_the_files(encoder):
    assert encoder.frame == Frame(cls=101, sep=102)


# -- what the library would not survive ---------------------------------------------------------


def test_a_context_with_less_room_than_its_limits_is_refused(starter):
    """`llama_encode` aborts over a batch that is larger than the context's ubatch."""
    from appliance.engine.llama.encoder import EncoderBackend

    small = replace(starter.limits, ubatch_tokens_max=256, max_batch_tokens=256)
    backend = starter.weights.open_backend(small, flash_attention=None)
    with pytest.raises(AssertionError):
        EncoderBackend(
            backend._context,
            backend._team,
            limits=starter.limits,
            facts=starter.facts,
            segments=None,
        )
    backend.close()


def test_a_tokenizer_that_was_closed_is_not_called_again(tmp_path):
    tokenizer = LlamaTokenizer(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    tokenizer.close()
    with pytest.raises(AssertionError):
        tokenizer.encode(["a"])
    with pytest.raises(AssertionError):
        tokenizer.frame()


def test_rows_of_no_sequence_are_not_asked_for(starter):
    from appliance.engine.llama.library import read_rows

    with pytest.raises(AssertionError):
        read_rows(starter.backend._context, 0, starter.facts.width)

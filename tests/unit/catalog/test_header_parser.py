import random
import struct
import time

import gguf
import pytest

from appliance.catalog import cursor, header_parser
from appliance.catalog.header import Header, Tensor
from appliance.catalog.header_parser import BLOCKS, read_header
from appliance.core.errors import InvalidModelFile
from tests.models import VOCABULARY, write_tiny_gguf

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def number(code):
    return lambda value: struct.pack(f"<{code}", value)


PACKERS = {
    U8: number("B"),
    I8: number("b"),
    U16: number("H"),
    I16: number("h"),
    U32: number("I"),
    I32: number("i"),
    F32: number("f"),
    BOOL: number("B"),
    STRING: text,
    U64: number("Q"),
    I64: number("q"),
    F64: number("d"),
}


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + PACKERS[kind](value)


def array(name, kind, values, *, count=None):
    body = b"".join(PACKERS[kind](value) for value in values)
    return (
        text(name)
        + struct.pack("<IIQ", ARRAY, kind, len(values) if count is None else count)
        + body
    )


def tensor(name="t", dims=(4,), kind=0, offset=0, *, n_dims=None):
    count = len(dims) if n_dims is None else n_dims
    return (
        text(name)
        + struct.pack("<I", count)
        + struct.pack(f"<{len(dims)}Q", *dims)
        + struct.pack("<IQ", kind, offset)
    )


def gguf_bytes(
    keys=(),
    tensors=(),
    *,
    magic=b"GGUF",
    version=3,
    n_keys=None,
    n_tensors=None,
    data=b"",
    align=32,
):
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % align) + data


@pytest.fixture
def read(tmp_path):
    def read(raw):
        path = tmp_path / "model.gguf"
        path.write_bytes(raw)
        return read_header(path)

    return read


# -- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3])
def test_an_empty_header_of_a_known_version_is_read(read, version):
    found = read(gguf_bytes(version=version))
    assert (dict(found.metadata), dict(found.tensors), found.file_size) == ({}, {}, 32)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (U8, 255),
        (I8, -128),
        (U16, 65535),
        (I16, -32768),
        (U32, 2**32 - 1),
        (I32, -(2**31)),
        (F32, 0.5),
        (BOOL, True),
        (BOOL, False),
        (STRING, "naïve 漢"),
        (STRING, ""),
        (U64, 2**64 - 1),
        (I64, -(2**63)),
        (F64, 0.1),
    ],
)
def test_every_type_of_value_is_read_alone_and_in_an_array(read, kind, value):
    found = read(
        gguf_bytes(
            [key("one", kind, value), array("many", kind, [value] * 3), array("none", kind, [])]
        )
    )
    assert found.metadata["one"] == value
    assert type(found.metadata["one"]) is type(value)
    assert found.metadata["many"] == (value,) * 3
    assert found.metadata["none"] == ()


def test_a_tensor_has_numpy_order_and_absolute_offset(read):
    found = read(
        gguf_bytes(tensors=[tensor("pad", (8,)), tensor("m", (4, 3), offset=32)], data=bytes(80))
    )
    at = found.file_size - 48
    assert found.tensors["m"] == Tensor("m", (3, 4), 0, at, 48)


def test_the_alignment_of_the_file_moves_its_tensors(read):
    found = read(
        gguf_bytes([key("general.alignment", U32, 256)], [tensor()], align=256, data=bytes(16))
    )
    assert found.tensors["t"].offset == 256


def test_a_quantized_tensor_is_measured_in_blocks(read):
    found = read(gguf_bytes(tensors=[tensor(dims=(64, 2), kind=8)], data=bytes(136)))
    assert found.tensors["t"].size == 4 * 34


def test_block_sizes_are_those_of_ggml():
    theirs = {int(kind): size for kind, size in gguf.constants.GGML_QUANT_SIZES.items()}
    intermediate = {int(gguf.GGMLQuantizationType.Q8_1), int(gguf.GGMLQuantizationType.Q8_K)}
    known = {kind: size for kind, size in BLOCKS.items() if kind in theirs}
    assert known == {kind: size for kind, size in theirs.items() if kind not in intermediate}


def test_a_whole_file_reads_as_the_gguf_package_reads_it(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    fields = {
        name: value.contents()
        for name, value in theirs.fields.items()
        if not name.startswith("GGUF.")
    }
    assert {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in ours.metadata.items()
    } == fields
    assert list(ours.tensors) == [found.name for found in theirs.tensors]
    for found in theirs.tensors:
        mine = ours.tensors[found.name]
        assert (mine.offset, mine.size) == (found.data_offset, found.n_bytes)
        assert mine.shape == tuple(int(size) for size in reversed(found.shape))
        assert mine.kind == found.tensor_type


def test_a_header_longer_than_one_read_is_read(read):
    words = [f"word {index} {'x' * 40}" for index in range(60_000)]
    found = read(gguf_bytes([array("tokens", STRING, words), key("after", U32, 7)]))
    assert found.get_strings("tokens") == tuple(words)
    assert found.get_int("after") == 7


def test_a_vocabulary_of_250_thousand_tokens_takes_under_two_seconds(read):
    raw = gguf_bytes(
        [
            array("tokens", STRING, [f"t{index}" for index in range(250_000)]),
            array("kinds", I32, [1] * 250_000),
        ]
    )
    start = time.perf_counter()
    found = read(raw)
    assert time.perf_counter() - start < 2
    assert len(found.get_list("tokens")) == len(found.get_ints("kinds")) == 250_000


# -- what is refused --------------------------------------------------------------------------

MIB = 1024 * 1024
REFUSALS = [
    ("an empty file", b"", "ends at 0 bytes"),
    ("another format", b"PK\x03\x04" + bytes(64), "not a GGUF file"),
    ("version 1", gguf_bytes(version=1), "version 1"),
    ("a future version", gguf_bytes(version=4), "version 4"),
    ("big-endian", gguf_bytes(version=3 << 24), "big-endian"),
    ("too many tensors", gguf_bytes(n_tensors=header_parser.TENSORS_MAX + 1), "tensors; at most"),
    ("too many keys", gguf_bytes(n_keys=header_parser.KEYS_MAX + 1), "metadata keys; at most"),
    ("a count without its keys", gguf_bytes(n_keys=5), "inside the header"),
    ("a count without its tensors", gguf_bytes(n_tensors=5), "bytes"),
    ("a repeated key", gguf_bytes([key("k", U8, 1)] * 2), "k: duplicate metadata key"),
    (
        "an unknown value type",
        gguf_bytes([text("k") + struct.pack("<IQ", 13, 0)]),
        "k: unknown value type 13",
    ),
    (
        "an unknown item type",
        gguf_bytes([text("k") + struct.pack("<IIQ", ARRAY, 99, 1)], data=bytes(9)),
        "k: unknown value type 99",
    ),
    (
        "an array of arrays",
        gguf_bytes([text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1)], data=bytes(9)),
        "arrays of arrays",
    ),
    (
        "a long array",
        gguf_bytes([array("k", U8, [], count=cursor.ARRAY_ITEMS_MAX + 1)]),
        "array of 1000001 items",
    ),
    ("an endless array", gguf_bytes([array("k", F64, [], count=2**64 - 1)]), "array of"),
    ("a long key", gguf_bytes([key(b"k" * (MIB + 1), U8, 1)]), "string of 1048577 bytes"),
    (
        "a long string",
        gguf_bytes([key("k", STRING, b"x" * (MIB + 1))]),
        "k: string of 1048577 bytes",
    ),
    (
        "an endless string",
        gguf_bytes([text("k") + struct.pack("<IQ", STRING, 2**64 - 1)]),
        "k: string of",
    ),
    (
        "a key that is not UTF-8",
        gguf_bytes([key(b"\xff", U8, 1)]),
        "a metadata key: a string is not UTF-8",
    ),
    (
        "a string that is not UTF-8",
        gguf_bytes([key("k", STRING, b"\xc3")]),
        "k: a string is not UTF-8",
    ),
    (
        "a surrogate in a string",
        gguf_bytes([key("k", STRING, b"\xed\xa0\x80")]),
        "k: a string is not UTF-8",
    ),
    ("a bool of two", gguf_bytes([key("k", BOOL, 2)]), "k: a bool"),
    ("a string cut short", gguf_bytes([key("k", STRING, "x" * 100)])[:80], "inside the header"),
    ("an array cut short", gguf_bytes([array("k", U64, [1] * 100)])[:200], "inside the header"),
    ("alignment zero", gguf_bytes([key("general.alignment", U32, 0)]), "general.alignment: 0"),
    ("alignment 48", gguf_bytes([key("general.alignment", U32, 48)]), "general.alignment: 48"),
    (
        "a negative alignment",
        gguf_bytes([key("general.alignment", I32, -32)]),
        "general.alignment: -32",
    ),
    (
        "a huge alignment",
        gguf_bytes([key("general.alignment", U32, 2 * MIB)]),
        "general.alignment: 2097152",
    ),
    (
        "an alignment in words",
        gguf_bytes([key("general.alignment", STRING, "32")]),
        "expected int, found str",
    ),
    ("a tensor without name", gguf_bytes(tensors=[tensor("")], data=bytes(16)), "tensor name"),
    (
        "a tensor with a long name",
        gguf_bytes(tensors=[tensor("n" * 64)], data=bytes(16)),
        "tensor name",
    ),
    (
        "a repeated tensor",
        gguf_bytes(tensors=[tensor()] * 2, data=bytes(16)),
        "t: duplicate tensor name",
    ),
    ("no dimensions", gguf_bytes(tensors=[tensor(dims=())], data=bytes(16)), "t: 0 dimensions"),
    (
        "five dimensions",
        gguf_bytes(tensors=[tensor(dims=(1,) * 5)], data=bytes(16)),
        "t: 5 dimensions",
    ),
    (
        "four billion dimensions",
        gguf_bytes(tensors=[tensor(n_dims=2**32 - 1)], data=bytes(16)),
        "dimensions; 1 to 4",
    ),
    (
        "an empty dimension",
        gguf_bytes(tensors=[tensor(dims=(4, 0))], data=bytes(16)),
        "has not 1 to",
    ),
    (
        "an overflowing product",
        gguf_bytes(tensors=[tensor(dims=(2**32, 2**32, 2**32))]),
        "has not 1 to",
    ),
    (
        "an unknown tensor type",
        gguf_bytes(tensors=[tensor(kind=4)], data=bytes(16)),
        "t: unknown tensor type 4",
    ),
    (
        "half a block",
        gguf_bytes(tensors=[tensor(dims=(48,), kind=8)], data=bytes(68)),
        "do not divide into blocks of 32",
    ),
    (
        "a crooked offset",
        gguf_bytes(tensors=[tensor(offset=8)], data=bytes(64)),
        "offset 8 is not a multiple of 32",
    ),
    ("a tensor past the end", gguf_bytes(tensors=[tensor()], data=bytes(15)), "t: ends at byte"),
    (
        "a tensor far past the end",
        gguf_bytes(tensors=[tensor(offset=2**64 - 32)], data=bytes(16)),
        "t: ends at byte",
    ),
]


@pytest.mark.parametrize(
    ("raw", "reason"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_a_broken_file_is_refused_with_its_reason(read, raw, reason):
    with pytest.raises(InvalidModelFile, match=reason):
        read(raw)


def test_many_arrays_together_are_bounded(read, monkeypatch):
    monkeypatch.setattr(cursor, "ARRAY_ITEMS_TOTAL_MAX", 250)
    assert len(read(gguf_bytes([array(f"k{n}", U8, [1] * 100) for n in range(2)])).metadata) == 2
    with pytest.raises(InvalidModelFile, match="k2: more than 250 array items in all"):
        read(gguf_bytes([array(f"k{n}", U8, [1] * 100) for n in range(3)]))


def test_the_header_as_a_whole_is_bounded(read, monkeypatch):
    raw = gguf_bytes([key("k", STRING, "x" * 500)])
    monkeypatch.setattr(cursor, "HEADER_BYTES_MAX", 400)
    with pytest.raises(InvalidModelFile, match="larger than 400 bytes"):
        read(raw)


@pytest.mark.parametrize("name", ["absent.gguf", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        read_header(tmp_path / name)


def test_every_truncation_of_a_header_is_refused(read, tmp_path):
    raw = gguf_bytes(
        [key("a", STRING, "bert"), array("b", STRING, ["x", "y"])], [tensor()], data=bytes(16)
    )
    for end in range(len(raw)):
        with pytest.raises(InvalidModelFile):
            read(raw[:end])


# -- mutations --------------------------------------------------------------------------------


def mutated(raw, chance):
    head = 24 + chance.randrange(1, len(raw) - 24)
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(head)
        match chance.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                changed[at : at + 8] = struct.pack(
                    "<Q", chance.choice([0, 1, 2**31, 2**32, 2**63, 2**64 - 1])
                )
            case 3:
                del changed[at : at + chance.randint(1, 40)]
            case _:
                changed[at:at] = chance.randbytes(chance.randint(1, 40))
        head = max(1, min(head, len(changed)))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_header_is_read_or_refused_and_nothing_else(read, seed):
    chance = random.Random(seed)
    base = gguf_bytes(
        [
            key("general.architecture", STRING, "bert"),
            key("general.alignment", U32, 32),
            key("flag", BOOL, True),
            array("tokens", STRING, ["one", "two", "drei"]),
            array("kinds", I32, [1, 2, 3]),
            key("e", F32, 1e-12),
        ],
        [tensor("m", (32, 4), 1), tensor("q", (32, 2), 8, 256)],
        data=bytes(352),
    )
    start = time.perf_counter()
    for _ in range(60):
        try:
            found = read(mutated(base, chance))
        except InvalidModelFile:
            continue
        assert isinstance(found, Header)
        assert all(
            0 < row.offset <= row.offset + row.size <= found.file_size
            for row in found.tensors.values()
        )
    assert time.perf_counter() - start < 10


def test_the_tiny_vocabulary_survives_the_way_into_a_file(tmp_path):
    tokens = read_header(write_tiny_gguf(tmp_path / "tiny.gguf", seed=2)).get_strings(
        "tokenizer.ggml.tokens"
    )
    assert len(tokens) == len(VOCABULARY)

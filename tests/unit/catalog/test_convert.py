import hashlib
import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer

from appliance.catalog import folder as folders
from appliance.catalog.convert import convert_folder
from appliance.catalog.header_parser import read_header
from appliance.catalog.weights import read_tensor_f32
from appliance.core.errors import InvalidModelFile
from tests.models import (
    BLOCKS,
    CONTEXT,
    HEADS,
    HIDDEN,
    INNER,
    SPECIALS,
    VOCABULARY,
    tiny_tokenizer,
    write_tiny_bert_folder,
)

F32, F16 = 0, 1


def converted(path, **wishes):
    """Make a folder as wished, convert it, and return its header and its tensors."""
    tensors = write_tiny_bert_folder(path / "model", **{"seed": 1, **wishes})
    convert_folder(path / "model", path / "model.gguf")
    return read_header(path / "model.gguf"), tensors


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# -- embedders --------------------------------------------------------------------------------


def test_an_embedder_says_what_llama_cpp_needs_to_know(tmp_path):
    found, _ = converted(tmp_path)
    assert found.architecture == "bert"
    assert found.arch_int("context_length") == CONTEXT
    assert found.arch_int("embedding_length") == HIDDEN
    assert found.arch_int("feed_forward_length") == INNER
    assert found.arch_int("block_count") == BLOCKS
    assert found.arch_int("attention.head_count") == HEADS
    assert found.arch_int("pooling_type") == folders.POOLING_MEAN
    assert found.get_bool("bert.attention.causal") is False
    assert found.get_float("bert.attention.layer_norm_epsilon") == pytest.approx(1e-12)
    assert found.get_int("tokenizer.ggml.token_type_count") == 2
    assert found.get_int("general.file_type") == 1


def test_every_tensor_of_the_encoder_arrives_and_the_pooler_stays_behind(tmp_path):
    found, _ = converted(tmp_path)
    parts = [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "attn_output_norm",
        "ffn_up",
        "ffn_down",
        "layer_output_norm",
    ]
    blocks = {
        f"blk.{n}.{part}.{kind}"
        for n in range(BLOCKS)
        for part in parts
        for kind in ("weight", "bias")
    }
    first = {
        "token_embd.weight",
        "position_embd.weight",
        "token_types.weight",
        "token_embd_norm.weight",
        "token_embd_norm.bias",
    }
    assert set(found.tensors) == blocks | first


@pytest.mark.parametrize(
    ("theirs", "ours", "kind"),
    [
        ("embeddings.word_embeddings.weight", "token_embd.weight", F16),
        ("embeddings.position_embeddings.weight", "position_embd.weight", F32),
        ("embeddings.token_type_embeddings.weight", "token_types.weight", F32),
        ("embeddings.LayerNorm.weight", "token_embd_norm.weight", F32),
        ("encoder.layer.1.attention.self.query.weight", "blk.1.attn_q.weight", F16),
        ("encoder.layer.1.attention.self.key.weight", "blk.1.attn_k.weight", F16),
        ("encoder.layer.1.attention.self.value.bias", "blk.1.attn_v.bias", F32),
        ("encoder.layer.0.attention.output.dense.weight", "blk.0.attn_output.weight", F16),
        ("encoder.layer.0.attention.output.LayerNorm.bias", "blk.0.attn_output_norm.bias", F32),
        ("encoder.layer.0.intermediate.dense.weight", "blk.0.ffn_up.weight", F16),
        ("encoder.layer.0.output.dense.weight", "blk.0.ffn_down.weight", F16),
        ("encoder.layer.0.output.LayerNorm.weight", "blk.0.layer_output_norm.weight", F32),
    ],
)
def test_matrices_are_halved_and_everything_else_keeps_its_bits(tmp_path, theirs, ours, kind):
    found, tensors = converted(tmp_path)
    expected = tensors[theirs]
    if kind == F16:
        expected = expected.astype(np.float16).astype(np.float32)
    assert found.tensors[ours].kind == kind
    np.testing.assert_array_equal(read_tensor_f32(found, ours), expected)


def test_weights_stored_as_halves_arrive_exactly(tmp_path):
    found, tensors = converted(tmp_path, dtype="F16")
    expected = (
        tensors["embeddings.position_embeddings.weight"].astype(np.float16).astype(np.float32)
    )
    np.testing.assert_array_equal(read_tensor_f32(found, "position_embd.weight"), expected)


def test_a_prefix_and_the_oldest_names_of_norms_are_understood(tmp_path):
    plain = write_tiny_bert_folder(tmp_path / "plain", seed=1)
    renamed = {}
    for name, array in plain.items():
        new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )
        renamed |= {name: None, f"bert.{new}": array}
    found, _ = converted(tmp_path, tensors=renamed)
    expected = plain["embeddings.LayerNorm.weight"]
    np.testing.assert_array_equal(read_tensor_f32(found, "token_embd_norm.weight"), expected)


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    sums = set()
    for place in ("one", "two"):
        write_tiny_bert_folder(tmp_path / place, seed=3)
        out = tmp_path / f"{place}.gguf"
        convert_folder(tmp_path / place, out, name="tiny")
        sums.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(sums) == 1


def test_the_name_is_the_folder_and_never_its_path(tmp_path, monkeypatch):
    found, _ = converted(tmp_path)
    assert found.get_str("general.name") == "model"
    assert str(tmp_path).encode() not in (tmp_path / "model.gguf").read_bytes()
    monkeypatch.chdir(tmp_path / "model")
    convert_folder((tmp_path / "model").relative_to(tmp_path / "model"), tmp_path / "dot.gguf")
    assert read_header(tmp_path / "dot.gguf").get_str("general.name") == "model"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    bad = np.full((HIDDEN, HIDDEN), 1e6, dtype=np.float32)
    write_tiny_bert_folder(
        tmp_path / "model", seed=1, tensors={"encoder.layer.1.attention.self.key.weight": bad}
    )
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"old")
    with pytest.raises(InvalidModelFile, match="not finite as float16"):
        convert_folder(tmp_path / "model", out)
    assert out.read_bytes() == b"old"
    assert list(out.parent.iterdir()) == [out]


def test_a_success_replaces_the_old_file_and_leaves_no_other(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"old")
    convert_folder(tmp_path / "model", out)
    assert read_header(out).architecture == "bert"
    assert list(out.parent.iterdir()) == [out]


# -- pooling ----------------------------------------------------------------------------------


def write_pooling(model, fields):
    (model / "1_Pooling").mkdir(parents=True)
    (model / "1_Pooling" / "config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("fields", "pooling"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, folders.POOLING_MEAN),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, folders.POOLING_CLS),
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, folders.POOLING_MEAN),
        ({"embedding_dimension": 32, "pooling_mode": "cls"}, folders.POOLING_CLS),
    ],
)
def test_pooling_is_read_from_its_module(tmp_path, fields, pooling):
    write_pooling(tmp_path / "model", fields)
    assert converted(tmp_path)[0].arch_int("pooling_type") == pooling


@pytest.mark.parametrize(
    "fields",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode_mean_tokens": False},
    ],
)
def test_other_poolings_are_refused(tmp_path, fields):
    write_pooling(tmp_path / "model", fields)
    with pytest.raises(InvalidModelFile, match="mean or cls is"):
        converted(tmp_path)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            {"type": "sentence_transformers.models.Dense", "path": "2_Dense"},
            "module 'Dense' is not supported",
        ),
        (
            {"type": "sentence_transformers.models.Pooling", "path": "9_Pooling"},
            "pooling in '9_Pooling'",
        ),
        ({"path": "1_Pooling"}, "missing required field"),
    ],
)
def test_modules_that_would_change_the_vector_are_refused(tmp_path, module, reason):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(InvalidModelFile, match=reason):
        converted(tmp_path)


# -- cross-encoders ---------------------------------------------------------------------------


def test_a_cross_encoder_keeps_its_pooler_and_its_classifier_whole(tmp_path):
    found, tensors = converted(tmp_path, labels=1)
    pairs = {
        "cls.weight": "bert.pooler.dense.weight",
        "cls.bias": "bert.pooler.dense.bias",
        "cls.output.weight": "classifier.weight",
        "cls.output.bias": "classifier.bias",
    }
    for ours, theirs in pairs.items():
        assert found.tensors[ours].kind == F32
        np.testing.assert_array_equal(read_tensor_f32(found, ours), tensors[theirs])
    assert found.arch_int("pooling_type") == folders.POOLING_RANK
    assert "bert.classifier.output_labels" not in found.metadata


def test_several_labels_are_written_in_the_order_of_their_ids(tmp_path):
    labels = {"2": "neutral", "0": "contradiction", "1": "entailment"}
    found, _ = converted(tmp_path, labels=3, config={"id2label": labels})
    assert found.get_strings("bert.classifier.output_labels") == (
        "contradiction",
        "entailment",
        "neutral",
    )


def test_the_classifier_counts_when_config_names_no_labels(tmp_path):
    found, _ = converted(tmp_path, labels=2, config={"id2label": None})
    assert found.get_strings("bert.classifier.output_labels") == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, None),
        (
            {
                "sentence_transformers": {
                    "activation_fn": "torch.nn.modules.activation.Sigmoid",
                    "version": "5",
                }
            },
            "sigmoid",
        ),
        ({"sentence_transformers": {"version": "5"}}, None),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
    ],
)
def test_a_declared_activation_is_kept(tmp_path, config, activation):
    found, _ = converted(tmp_path, labels=1, config=config)
    assert found.get_str("gigarouter.head.activation") == activation


CROSS_ENCODER_REFUSALS = [
    (
        "no pooler",
        {"tensors": {"bert.pooler.dense.weight": None}},
        r"bert\.pooler\.dense\.weight is missing",
    ),
    ("no classifier", {"tensors": {"classifier.weight": None}}, r"classifier\.weight is missing"),
    ("no classifier bias", {"tensors": {"classifier.bias": None}}, r"classifier\.bias is missing"),
    (
        "a narrow classifier",
        {"tensors": {"classifier.weight": np.zeros((1, 8), np.float32)}},
        r"has shape \(1, 8\)",
    ),
    (
        "more labels than rows",
        {"config": {"id2label": {"0": "a", "1": "b"}}},
        "has 1 rows; config.json names 2 labels",
    ),
    (
        "label ids with a hole",
        {"config": {"id2label": {"0": "a", "2": "b"}}},
        "do not count up from 0",
    ),
    (
        "another activation",
        {"config": {"sbert_ce_default_activation_function": "torch.nn.Tanh"}},
        "'torch.nn.Tanh' is not supported",
    ),
]


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [row[1:] for row in CROSS_ENCODER_REFUSALS],
    ids=[row[0] for row in CROSS_ENCODER_REFUSALS],
)
def test_a_cross_encoder_that_would_score_wrongly_is_refused(tmp_path, wishes, reason):
    with pytest.raises(InvalidModelFile, match=reason):
        converted(tmp_path, labels=1, **wishes)


# -- refusals of encoders ---------------------------------------------------------------------

REFUSALS = [
    (
        "another family",
        {"config": {"model_type": "xlm-roberta", "hidden_size": None}},
        "'xlm-roberta' is not supported; 'bert' is",
    ),
    ("no family", {"config": {"model_type": None}}, "model_type '' is not supported"),
    ("relu", {"config": {"hidden_act": "relu"}}, "'relu' is not supported; 'gelu' is"),
    (
        "relative positions",
        {"config": {"position_embedding_type": "relative_key"}},
        "'relative_key' is not supported; 'absolute' is",
    ),
    ("a decoder", {"config": {"is_decoder": True}}, "decoders are not supported"),
    (
        "another head",
        {"config": {"architectures": ["BertForMaskedLM"]}},
        "BertForMaskedLM.* is not supported",
    ),
    ("heads that do not divide", {"config": {"num_attention_heads": 5}}, "not a multiple"),
    ("no width", {"config": {"hidden_size": None}}, "missing required field `hidden_size`"),
    ("a negative width", {"config": {"hidden_size": -32}}, "hidden_size"),
    ("a width in words", {"config": {"hidden_size": "32"}}, "Expected `int`, got `str`"),
    ("a thousand blocks", {"config": {"num_hidden_layers": 1000}}, "num_hidden_layers"),
    (
        "a missing block",
        {"config": {"num_hidden_layers": BLOCKS + 1}},
        r"encoder\.layer\.2\.attention\.self\.query\.weight is missing",
    ),
    (
        "a missing tensor",
        {"tensors": {"encoder.layer.0.output.dense.bias": None}},
        r"encoder\.layer\.0\.output\.dense\.bias is missing",
    ),
    (
        "a wrong shape",
        {"config": {"max_position_embeddings": 65}},
        r"has shape \(64, 32\); config.json asks for \(65, 32\)",
    ),
    ("weights as doubles", {"dtype": "F64"}, "is F64; F32, F16 and BF16 are supported"),
    (
        "a weight that is no number",
        {"tensors": {"embeddings.LayerNorm.bias": np.full(HIDDEN, np.nan, np.float32)}},
        "not finite as float32",
    ),
]


@pytest.mark.parametrize(
    ("wishes", "reason"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_an_encoder_that_would_compute_wrongly_is_refused(tmp_path, wishes, reason):
    with pytest.raises(InvalidModelFile, match=reason):
        converted(tmp_path, **wishes)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_it_needs_is_refused(tmp_path, file):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    (tmp_path / "model" / file).unlink()
    with pytest.raises(InvalidModelFile, match=r"cannot be read|there is no config\.json in it"):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, raw):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    (tmp_path / "model" / "config.json").write_bytes(raw)
    with pytest.raises(InvalidModelFile, match=r"config\.json"):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")


def test_a_file_over_the_bound_is_refused(tmp_path, monkeypatch):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    monkeypatch.setattr(folders, "JSON_BYTES_MAX", 20)
    with pytest.raises(InvalidModelFile, match="more than 20 bytes"):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")


# -- vocabulary -------------------------------------------------------------------------------


def rebuilt(found):
    """Return the tokens as the reference spells them, from the GGUF file alone."""
    tokens, kinds = (
        found.get_strings("tokenizer.ggml.tokens"),
        found.get_ints("tokenizer.ggml.token_type"),
    )
    spelt = {}
    for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == 1:
            spelt[token.removeprefix("▁") if token.startswith("▁") else f"##{token}"] = index
        elif kind != 5:
            spelt[token] = index
    return spelt


@pytest.mark.parametrize("tokenizer", [True, False])
def test_the_reference_vocabulary_can_be_rebuilt(tmp_path, tokenizer):
    found, _ = converted(tmp_path, tokenizer=tokenizer)
    assert rebuilt(found) == {token: index for index, token in enumerate(VOCABULARY)}
    kinds = found.get_ints("tokenizer.ggml.token_type")
    assert [VOCABULARY[index] for index, kind in enumerate(kinds) if kind == 3] == list(SPECIALS)


def test_the_tiny_tokenizer_is_one_that_the_reference_loads(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    tokens = tokenizer.encode("The cats", "sat").tokens
    assert tokens == ["[CLS]", "the", "cat", "##s", "[SEP]", "sat", "[SEP]"]


def test_special_ids_and_switches_are_written(tmp_path):
    found, _ = converted(tmp_path)
    names = {
        "bos": "[CLS]",
        "eos": "[SEP]",
        "cls": "[CLS]",
        "seperator": "[SEP]",
        "unknown": "[UNK]",
        "padding": "[PAD]",
        "mask": "[MASK]",
    }
    for role, token in names.items():
        assert found.get_int(f"tokenizer.ggml.{role}_token_id") == VOCABULARY.index(token)
    switches = {
        "add_bos_token": True,
        "add_eos_token": True,
        "add_sep_token": False,
        "normalizer.lowercase": True,
    }
    for switch, value in switches.items():
        assert found.get_bool(f"tokenizer.ggml.{switch}") is value
    assert found.get_bool("gigarouter.tokenizer.lowercase") is True
    assert found.get_bool("gigarouter.tokenizer.clean_text") is True
    assert found.get_bool("gigarouter.tokenizer.chinese_chars") is True
    assert found.get_int("gigarouter.tokenizer.max_word_chars") == 100
    assert found.get_bool("gigarouter.tokenizer.strip_accents") is None


def test_switches_of_a_cased_tokenizer_are_kept(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1)

    def change(document):
        document["normalizer"] |= {
            "lowercase": False,
            "strip_accents": True,
            "handle_chinese_chars": False,
            "clean_text": False,
        }
        document["model"]["max_input_chars_per_word"] = 50

    edit(tmp_path / "model" / "tokenizer.json", change)
    convert_folder(tmp_path / "model", tmp_path / "out.gguf")
    found = read_header(tmp_path / "out.gguf")
    assert found.get_bool("tokenizer.ggml.normalizer.lowercase") is False
    assert found.get_bool("tokenizer.ggml.normalizer.strip_accents") is True
    assert found.get_bool("gigarouter.tokenizer.lowercase") is False
    assert found.get_bool("gigarouter.tokenizer.strip_accents") is True
    assert found.get_bool("gigarouter.tokenizer.chinese_chars") is False
    assert found.get_bool("gigarouter.tokenizer.clean_text") is False
    assert found.get_int("gigarouter.tokenizer.max_word_chars") == 50


def test_switches_beside_a_vocab_txt_are_kept(tmp_path):
    (tmp_path / "model").mkdir()
    switches = {
        "do_lower_case": False,
        "strip_accents": False,
        "tokenize_chinese_chars": False,
        "cls_token": {"content": "[CLS]"},
    }
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(switches))
    found, _ = converted(tmp_path, tokenizer=False)
    assert found.get_bool("gigarouter.tokenizer.lowercase") is False
    assert found.get_bool("gigarouter.tokenizer.strip_accents") is False
    assert found.get_bool("gigarouter.tokenizer.chinese_chars") is False


def test_ids_without_a_token_are_marked_unused(tmp_path):
    size = len(VOCABULARY) + 2
    rows = np.zeros((size, HIDDEN), np.float32)
    found, _ = converted(
        tmp_path, config={"vocab_size": size}, tensors={"embeddings.word_embeddings.weight": rows}
    )
    assert found.get_strings("tokenizer.ggml.tokens")[-2:] == (
        f"[PAD{size - 2}]",
        f"[PAD{size - 1}]",
    )
    assert found.get_ints("tokenizer.ggml.token_type")[-2:] == (5, 5)


def test_an_added_token_that_is_not_special_is_user_defined(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    index = VOCABULARY.index("cat")
    edit(
        tmp_path / "model" / "tokenizer.json",
        lambda document: document["added_tokens"].append(
            {"id": index, "content": "cat", "special": False}
        ),
    )
    convert_folder(tmp_path / "model", tmp_path / "out.gguf")
    found = read_header(tmp_path / "out.gguf")
    assert found.get_ints("tokenizer.ggml.token_type")[index] == 4
    assert found.get_strings("tokenizer.ggml.tokens")[index] == "cat"


TOKENIZER_REFUSALS = [
    (
        "another model",
        lambda d: d["model"].update(type="BPE"),
        "model 'BPE' is not supported; 'WordPiece' is",
    ),
    ("no normalizer", lambda d: d.update(normalizer=None), "normalizer None is not supported"),
    (
        "another normalizer",
        lambda d: d["normalizer"].update(type="NFC"),
        "normalizer 'NFC' is not supported",
    ),
    (
        "another splitting",
        lambda d: d["pre_tokenizer"].update(type="Whitespace"),
        "pre_tokenizer 'Whitespace'",
    ),
    (
        "another prefix",
        lambda d: d["model"].update(continuing_subword_prefix="@@"),
        "prefix '@@' is not supported",
    ),
    ("another unknown token", lambda d: d["model"].update(unk_token="[CLS]"), "unk_token"),
    ("no template", lambda d: d.update(post_processor=None), "post_processor is not"),
    (
        "another template",
        lambda d: d["post_processor"]["single"].reverse(),
        "post_processor is not",
    ),
    (
        "one segment",
        lambda d: d["post_processor"]["pair"][3]["Sequence"].update(type_id=0),
        "post_processor is not",
    ),
    ("no vocabulary", lambda d: d["model"].pop("vocab"), "missing required field `vocab`"),
    ("a vocabulary of pairs", lambda d: d["model"].update(vocab=[["a", 0]]), "Expected `object`"),
    (
        "an id out of range",
        lambda d: d["model"]["vocab"].update(new=len(VOCABULARY)),
        "has id 89; vocab_size is 89",
    ),
    ("a negative id", lambda d: d["model"]["vocab"].update(new=-1), "has id -1"),
    ("a shared id", lambda d: d["model"]["vocab"].update(new=7), "share id 7"),
    (
        "a token with two ids",
        lambda d: d["added_tokens"].append({"id": 9, "content": "cat"}),
        "'cat' has two ids",
    ),
    (
        "an unspeakable piece",
        lambda d: d["model"]["vocab"].update({"##▁a": d["model"]["vocab"].pop("cat")}),
        "start of a word",
    ),
    (
        "two pieces in one spelling",
        lambda d: d["model"]["vocab"].update({"##[CLS]": d["model"]["vocab"].pop("cat")}),
        "are both",
    ),
    (
        "no separator",
        lambda d: (d["model"]["vocab"].pop("[SEP]"), d["added_tokens"].pop(3)),
        r"'\[SEP\]' is not in the vocabulary",
    ),
]


@pytest.mark.parametrize(
    ("change", "reason"),
    [row[1:] for row in TOKENIZER_REFUSALS],
    ids=[row[0] for row in TOKENIZER_REFUSALS],
)
def test_a_tokenizer_that_could_not_be_rebuilt_is_refused(tmp_path, change, reason):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    edit(tmp_path / "model" / "tokenizer.json", change)
    with pytest.raises(InvalidModelFile, match=reason):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")


def test_the_older_post_processor_is_understood(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    older = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    edit(
        tmp_path / "model" / "tokenizer.json",
        lambda document: document.update(post_processor=older),
    )
    convert_folder(tmp_path / "model", tmp_path / "out.gguf")
    assert rebuilt(read_header(tmp_path / "out.gguf"))["[SEP]"] == 3


@pytest.mark.parametrize("switch", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_files_that_disagree_about_a_switch_are_refused(tmp_path, switch):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({switch: False}))
    with pytest.raises(InvalidModelFile, match=f"{switch} is .* here and False"):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")


def test_a_repeated_line_of_vocab_txt_keeps_its_last_id(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1, tokenizer=False)
    lines = [*VOCABULARY]
    lines[-1] = "cat"
    (tmp_path / "model" / "vocab.txt").write_bytes("\r\n".join(lines).encode())
    convert_folder(tmp_path / "model", tmp_path / "out.gguf")
    found = read_header(tmp_path / "out.gguf")
    assert rebuilt(found)["cat"] == len(VOCABULARY) - 1
    assert found.get_ints("tokenizer.ggml.token_type")[VOCABULARY.index("cat")] == 5


def test_a_vocab_txt_that_is_no_text_is_refused(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1, tokenizer=False)
    (tmp_path / "model" / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidModelFile, match="is not UTF-8"):
        convert_folder(tmp_path / "model", tmp_path / "out.gguf")


def test_the_folder_is_left_as_it_was(tmp_path):
    write_tiny_bert_folder(tmp_path / "model", seed=1)
    before = shutil.copytree(tmp_path / "model", tmp_path / "copy")
    convert_folder(tmp_path / "model", tmp_path / "out.gguf")
    assert sorted(path.name for path in before.iterdir()) == sorted(
        path.name for path in (tmp_path / "model").iterdir()
    )


def test_the_tiny_tokenizer_holds_the_tiny_vocabulary():
    assert tuple(tiny_tokenizer()["model"]["vocab"]) == VOCABULARY

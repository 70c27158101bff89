"""Tokenizers of a published size: their merges are learnt from a few sentences and then filled up at random, so that
reading one costs what it costs."""
import json
import random

from oracle.text import CORPUS
from oracle.text_models import QWEN_PATTERN
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

QWEN_ENTRIES = 151643  # without special tokens


def make(size, pre_tokenizer, special_tokens=(), normalizer=None):
    """A byte-level BPE of `size` entries, special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(special_tokens), show_progress=False))
    return fill(tokenizer, size)


def make_qwen(special):
    """Qwen's, with `special` behind it."""
    tokenizer = make(QWEN_ENTRIES, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizer=normalizers.NFC())
    tokenizer.add_special_tokens(special)
    return tokenizer


def complete(config, size, dtype):
    """The config with the published number of rows for tokens, stored in `dtype`."""
    config.text_config.vocab_size = size
    config.dtype = config.text_config.dtype = config.vision_config.dtype = dtype
    return config


def fill(tokenizer, size):
    """Adds random merges of short tokens until the vocabulary is full."""
    state = json.loads(tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    short = [token for token in vocab if len(token) <= 6 and not token.startswith("<|")]
    chance = random.Random(5)
    while len(vocab) < size:
        left, right = chance.choice(short), chance.choice(short)
        if left + right in vocab or "Ġ" in right:
            continue
        vocab[left + right] = len(vocab)
        merges.append([left, right])
        if len(left + right) <= 6:
            short.append(left + right)
    return Tokenizer.from_str(json.dumps(state))

"""SmolVLM2 in its published sizes."""
from benchmarks import vocabulary
from benchmarks.shapes import HEAD_DIM, MAX_POSITIONS, VOCAB
from benchmarks.work import Sizes
from oracle.text import CHAT_TEMPLATE, special, write_json
from tokenizers import pre_tokenizers
from transformers import SmolVLMConfig

BASE_VOCAB = 49152
IMAGE_ID, EOS_ID, PAD_ID = 49190, 49279, 2
GRID = 6
LARGE_TILES = 17  # of a square picture


def count_patches(shape):
    return (shape["vision"]["image_size"] // shape["vision"]["patch_size"]) ** 2


def sizes(shape):
    vision, text = shape["vision"], shape["text"]
    patches = count_patches(shape)
    return Sizes(
        vision_width=vision["hidden_size"], vision_inner=vision["intermediate_size"],
        vision_layers=vision["num_hidden_layers"], patch_values=3 * vision["patch_size"] ** 2,
        connector=vision["hidden_size"] * shape["scale_factor"] ** 2 * text["hidden_size"],
        patches_per_feature=shape["scale_factor"] ** 2, hidden=text["hidden_size"], inner=text["intermediate_size"],
        layers=text["num_hidden_layers"], query_width=text["num_attention_heads"] * HEAD_DIM,
        key_width=text["num_key_value_heads"] * HEAD_DIM, vocabulary=VOCAB, tied=False,
        pictures={"small": [patches], "large": [patches] * LARGE_TILES},
        labels={"small": "1 tile", "large": f"{LARGE_TILES} tiles"})


def make_config(shape, dtype):
    return SmolVLMConfig(
        image_token_id=IMAGE_ID, scale_factor=shape["scale_factor"], pad_token_id=PAD_ID,
        tie_word_embeddings=False, dtype=dtype, vision_config=shape["vision"],
        text_config=dict(model_type="llama", vocab_size=VOCAB, head_dim=HEAD_DIM,
                         max_position_embeddings=MAX_POSITIONS, rms_norm_eps=1e-5, pad_token_id=PAD_ID,
                         bos_token_id=1, eos_token_id=2, **shape["text"]))


def make_tokenizer():
    tokenizer = vocabulary.make(
        BASE_VOCAB, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                             pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        [special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    cells = [f"<row_{r}_col_{c}>" for r in range(1, GRID + 1) for c in range(1, GRID + 1)]
    added = ["<global-img>", *cells, "<fake_token_around_image>", "<image>"]
    reserved = EOS_ID - BASE_VOCAB - len(added)
    added += [f"<|reserved_special_token_{i}|>" for i in range(reserved)] + ["<end_of_utterance>"]
    tokenizer.add_special_tokens([special(t) for t in added])
    assert tokenizer.token_to_id("<image>") == IMAGE_ID
    assert tokenizer.token_to_id("<end_of_utterance>") == EOS_ID
    return tokenizer


def write_text_files(folder, shape):
    make_tokenizer().save(str(folder / "tokenizer.json"))
    names = dict(bos_token="<|im_start|>", eos_token="<end_of_utterance>",
                 pad_token="<|im_end|>", unk_token="<|endoftext|>")
    write_json(folder / "special_tokens_map.json", names)
    write_json(folder / "tokenizer_config.json", {
        **names, "tokenizer_class": "GPT2Tokenizer", "processor_class": "SmolVLMProcessor",
        "model_max_length": 8192, "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>", "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>"})
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_json(folder / "generation_config.json", {
        "bos_token_id": 0, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID})
    write_json(folder / "processor_config.json", {
        "processor_class": "SmolVLMProcessor",
        "image_seq_len": count_patches(shape) // shape["scale_factor"] ** 2})


def write_processor(folder, shape, size):
    tile, split = shape["vision"]["image_size"], size == "large"
    write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor",
        "do_convert_rgb": True, "do_image_splitting": split, "do_normalize": True, "do_pad": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "max_image_size": {"longest_edge": tile}, "resample": 1, "rescale_factor": 1 / 255,
        "size": {"longest_edge": shape["longest_edge"] if split else tile},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": tile}}})

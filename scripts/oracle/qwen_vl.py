"""Tiny random Qwen2-VL, Qwen2.5-VL and Qwen3-VL checkpoints, and what transformers gives for pictures and a clip.

save() writes a checkpoint folder, golden() runs it: pixels, positions, features, hidden states, logits, loss, gradients
and greedy answers of prompts with no picture, one, two of different sizes, and a clip. Sizes tell mistakes apart: heads,
layers and widths differ, grids aren't square, windows are smaller than pictures, sections are unequal.
"""
import dataclasses
import json
import shutil

import numpy
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from .models import fill
from .text import CORPUS, write_json
from .text_models import QWEN_PATTERN

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
# Turns of the published templates, without their tools and counters.
TEMPLATE = (
    "{% for message in messages %}SYSTEM<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
SYSTEM = ("{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
          "<|im_end|>\n{% endif %}")


@dataclasses.dataclass
class QwenSpec:
    name: str
    seed: int
    kind: str
    vision: dict
    text: dict
    tied: bool
    patch: int
    has_system: bool = True
    is_flat: bool = False  # text fields at the root and older key names, as on the hub
    limits: tuple = (56 * 56, 120 * 120)  # pixels


def text(**changes):
    return dict(hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3,
                num_key_value_heads=1, max_position_embeddings=2048, rms_norm_eps=1e-5) | changes


SPECS = [
    QwenSpec("qwen2_vl_tiny", 61, "qwen2_vl",
             dict(depth=2, embed_dim=16, hidden_size=24, num_heads=2, mlp_ratio=3, patch_size=4),
             text(rope_parameters=dict(rope_type="default", rope_theta=1000.0, mrope_section=[1, 2, 1])),
             tied=True, patch=4, is_flat=True, limits=(16 * 16, 40 * 40)),
    QwenSpec("qwen2_5_vl_tiny", 67, "qwen2_5_vl",
             dict(depth=3, hidden_size=16, out_hidden_size=24, intermediate_size=20, num_heads=2, patch_size=4,
                  window_size=16, fullatt_block_indexes=[1], tokens_per_second=3),
             text(rope_parameters=dict(rope_type="default", rope_theta=500.0, mrope_section=[2, 1, 1])),
             tied=False, patch=4, limits=(16 * 16, 60 * 60)),
    QwenSpec("qwen3_vl_tiny", 71, "qwen3_vl",
             dict(depth=3, hidden_size=16, out_hidden_size=24, intermediate_size=28, num_heads=2, patch_size=4,
                  num_position_embeddings=25, deepstack_visual_indexes=[0, 2]),
             text(num_attention_heads=2, head_dim=16, rope_parameters=dict(
                 rope_type="default", rope_theta=800.0, mrope_section=[4, 2, 2], mrope_interleaved=True)),
             tied=True, patch=4, has_system=False, limits=(16 * 16, 48 * 48)),
]


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def make_config(spec, tokenizer):
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
           "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    end = tokenizer.token_to_id("<|im_end|>")
    settings = dict(spec.text, vocab_size=tokenizer.get_vocab_size() + 4, bos_token_id=None, eos_token_id=end,
                    pad_token_id=tokenizer.token_to_id("<|endoftext|>"), tie_word_embeddings=spec.tied)
    vision = dict(spec.vision, spatial_merge_size=2, temporal_patch_size=2)
    config = AutoConfig.for_model(spec.kind, text_config=settings, vision_config=vision, tie_word_embeddings=spec.tied,
                                  **{key: tokenizer.token_to_id(value) for key, value in ids.items()})
    config.text_config.use_cache = False
    return config


def save(spec, folder):
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer()
    config = make_config(spec, tokenizer)
    model = AutoModelForImageTextToText.from_config(config).eval()
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(fill(name, tuple(parameter.shape), generator, spec.tied))
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    if spec.is_flat:
        write_flat(folder)
    write_text_files(spec, folder, tokenizer)
    write_processors(spec, folder)
    return folder


def write_text_files(spec, folder, tokenizer):
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    added = {str(tokenizer.token_to_id(text)): {
        "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for text in SPECIAL}
    write_json(folder / "tokenizer_config.json", {
        "added_tokens_decoder": added, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False, "model_max_length": 2048, "tokenizer_class": "Qwen2Tokenizer"})
    end = tokenizer.token_to_id("<|im_end|>")
    write_json(folder / "generation_config.json", {"eos_token_id": [end, tokenizer.token_to_id("<|endoftext|>")]})
    (folder / "chat_template.jinja").write_text(
        TEMPLATE.replace("SYSTEM", SYSTEM if spec.has_system else ""), encoding="utf-8")


def write_processors(spec, folder):
    is_third = spec.kind == "qwen3_vl"
    shared = {"patch_size": spec.patch, "temporal_patch_size": 2, "merge_size": 2}
    if is_third:
        shared |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    low, high = spec.limits
    pictures = {**shared, "min_pixels": low, "max_pixels": high, "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor",
                                    "qwen3_vl": "Qwen3VLProcessor"}[spec.kind]}
    if is_third:
        pictures["size"] = {"shortest_edge": pictures.pop("min_pixels"), "longest_edge": pictures.pop("max_pixels")}
    write_json(folder / "preprocessor_config.json", pictures)
    videos = {**shared, "size": {"shortest_edge": low * (3 if is_third else 1), "longest_edge": high * (3 if is_third else 1)},
              "video_processor_type": "Qwen3VLVideoProcessor" if is_third else "Qwen2VLVideoProcessor"}
    write_json(folder / "video_preprocessor_config.json", videos)


def write_flat(folder):
    """config.json as the first published files have it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    inner = config.pop("text_config")
    rope = inner.pop("rope_parameters")
    inner["rope_theta"] = rope.pop("rope_theta")
    inner["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    for key in ("model_type", "dtype"):
        inner.pop(key, None)
    config["vision_config"]["in_chans"] = config["vision_config"].pop("in_channels", 3)
    config["torch_dtype"] = config.pop("dtype")
    write_json(path, {**inner, **config})


def load(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def picture(height, width, seed):
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)


# Pictures of two sizes, one of them enlarged, and a clip of an odd number of frames at 2 a second.
PICTURES = [(29, 50, 1), (9, 12, 2)]
CLIP = (22, 30, 5)
LAST_PATCHES = 24  # of the clip, that are kept


def shown():
    """The pictures, and the frames of the clip."""
    pictures = {f"picture.{i}": torch.from_numpy(picture(*size)) for i, size in enumerate(PICTURES)}
    return pictures | {"clip": torch.from_numpy(numpy.stack([picture(CLIP[0], CLIP[1], 100 + i) for i in range(CLIP[2])]))}


def prompts():
    """Content of the user's turn of each prompt: numbers of pictures, "clip", and texts."""
    return [["What colour is"], [0, "How many dogs are there?"], ["First ", 1, " then ", 0, "?"], ["clip", "And now? "]]


def encode(spec, folder, content):
    processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    parts, images, clips = [], [], []
    for part in content:
        if part == "clip":
            parts.append({"type": "video"})
            frames = numpy.stack([picture(CLIP[0], CLIP[1], 100 + i) for i in range(CLIP[2])])
            clips.append(torch.from_numpy(frames).permute(0, 3, 1, 2))
        elif isinstance(part, int):
            parts.append({"type": "image"})
            images.append(Image.fromarray(picture(*PICTURES[part])))
        else:
            parts.append({"type": "text", "text": part})
    rendered = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    options = {}
    if clips:
        metadata = [VideoMetadata(total_num_frames=CLIP[2], fps=2.0, duration=CLIP[2] / 2, width=CLIP[1], height=CLIP[0],
                                  frames_indices=list(range(CLIP[2])))]
        options = dict(videos=clips, videos_kwargs=dict(do_sample_frames=False, video_metadata=metadata))
    return processor(text=[rendered], images=images or None, return_tensors="pt", **options)


def golden(spec, folder):
    model = load(folder)
    golden, losses = shown(), []
    model.zero_grad(set_to_none=True)
    for number, content in enumerate(prompts()):
        inputs = encode(spec, folder, content)
        kept = {key: value for key, value in inputs.items()}
        with torch.no_grad():
            positions = model.model.get_rope_index(
                kept["input_ids"], kept["mm_token_type_ids"], image_grid_thw=kept.get("image_grid_thw"),
                video_grid_thw=kept.get("video_grid_thw"), second_per_grid_ts=kept.get("second_per_grid_ts"),
                attention_mask=kept["attention_mask"])[0] if len(content) > 1 else None
        output = model(**kept, output_hidden_states=True, use_cache=False)
        ids = kept["input_ids"]
        loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:])
        (loss / len(prompts())).backward()
        losses.append(loss.detach())
        golden |= {f"ids.{number}": ids, f"hidden.{number}": output.hidden_states[-1][:, -24:].detach(),
                   f"logits.{number}": output.logits[:, -3:].detach()}
        if positions is not None:
            golden[f"positions.{number}"] = positions[:, 0].contiguous()
        for key in ("pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw"):
            if key in kept and number > 1:
                golden[f"{key}.{number}"] = kept[key][-LAST_PATCHES:].clone() if key == "pixel_values_videos" else kept[key]
        golden |= greedy(model, kept, number)
        golden |= features(model, kept, number)
    golden["losses"] = torch.stack(losses)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and any(part in name for part in KEPT_GRADIENTS):
            golden["grad." + name] = parameter.grad.clone()
    return golden


KEPT_GRADIENTS = ("visual.blocks.0.attn.qkv", "visual.blocks.1.mlp", "patch_embed", "pos_embed", "merger.norm",
                  "merger.ln_q", "list.1.linear_fc2", "layers.0.self_attn", "language_model.norm")


def features(model, inputs, number):
    with torch.no_grad():
        if "pixel_values" in inputs:
            output = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        elif "pixel_values_videos" in inputs:
            output = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        else:
            return {}
    rows = [torch.cat(list(output.pooler_output))]
    rows += [torch.cat(list(part)) if isinstance(part, (tuple, list)) else part
             for part in getattr(output, "deepstack_features", None) or []]
    return {f"features.{number}": torch.cat(rows, dim=1)}


def greedy(model, inputs, number, steps=6):
    with torch.no_grad():
        result = model.generate(**inputs, max_new_tokens=steps, do_sample=False, use_cache=True, eos_token_id=None,
                                pad_token_id=0, output_logits=True, return_dict_in_generate=True)
    logits = torch.stack(result.logits)[:, 0]
    top = logits.topk(2, dim=-1).values
    margin = (top[:, 0] - top[:, 1]).min()
    assert margin > 2e-3, f"change the seed: greedy margin {margin}"
    ids = result.sequences[:, inputs["input_ids"].shape[1]:]
    return {f"greedy_ids.{number}": ids,
            f"greedy_logprobs.{number}": logits.log_softmax(-1).gather(1, ids.T).T.contiguous()}

"""Tiny random InternVL checkpoints in the layout of transformers, and what transformers gives for pictures and a clip.

save() writes a checkpoint folder, golden() runs it: pixels, features, hidden states, logits, loss, gradients and greedy
answers of prompts with no picture, one, three of different sizes, and a clip. One checkpoint is as published (names of
the hub, a head of its own although the class's default ties it), the other as transformers 5 saves it (a tied head), with
tiles of another size than the encoder's positions.
"""
import dataclasses
import json
import shutil

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText, AutoProcessor, InternVLConfig
from transformers.video_utils import VideoMetadata

from .models import fill
from .text import CORPUS, write_json
from .text_models import QWEN_PATTERN

NAMED = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
         "video_token": "<video>"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values()]
# The published one.
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}")
# On the hub → in transformers 5.
PREFIXES = {"vision_tower.": "model.vision_tower.", "multi_modal_projector.": "model.multi_modal_projector.",
            "language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."}


@dataclasses.dataclass
class InternSpec:
    name: str
    seed: int
    vision: dict
    text: dict
    tied: bool
    side: int  # of a tile
    is_published: bool = False
    patches: tuple = (1, 12)  # fewest and most tiles of a picture
    ratio: float = 0.5


def text(kind, **changes):
    return dict(model_type=kind, hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3,
                num_key_value_heads=1, max_position_embeddings=2048, rms_norm_eps=1e-5) | changes


def vision(**changes):
    return dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, image_size=[16, 16],
                patch_size=[4, 4], attention_bias=True) | changes


SPECS = [
    InternSpec("internvl_tiny", 83, vision(), text("qwen2", rope_parameters=dict(rope_type="default", rope_theta=1000.0)),
               tied=False, side=16, is_published=True),
    InternSpec("internvl3_5_tiny", 89, vision(num_hidden_layers=3, attention_bias=False, image_size=[16, 16]),
               text("qwen3", num_attention_heads=2, head_dim=16,
                    rope_parameters=dict(rope_type="default", rope_theta=800.0)),
               tied=True, side=24, patches=(2, 6)),
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


def tile_tokens(spec):
    return int(spec.side / spec.vision["patch_size"][0] * spec.ratio) ** 2


def make_config(spec, tokenizer):
    end = tokenizer.token_to_id("<|im_end|>")
    settings = dict(spec.text, vocab_size=tokenizer.get_vocab_size() + 4, bos_token_id=None, eos_token_id=end,
                    pad_token_id=tokenizer.token_to_id("<|endoftext|>"), tie_word_embeddings=spec.tied)
    config = InternVLConfig(text_config=settings, vision_config=spec.vision, tie_word_embeddings=spec.tied,
                            image_token_id=tokenizer.token_to_id("<IMG_CONTEXT>"), image_seq_length=tile_tokens(spec),
                            downsample_ratio=spec.ratio)
    config.text_config.use_cache = False
    return config


def save(spec, folder):
    tokenizer = make_tokenizer()
    save_model(spec, folder, tokenizer)
    write_text_files(folder, tokenizer)
    write_processors(spec, folder)
    return folder


def save_model(spec, folder, tokenizer):
    """Weights and config."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model = AutoModelForImageTextToText.from_config(make_config(spec, tokenizer)).eval()
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(fill(name, tuple(parameter.shape), generator, spec.tied))
    model.save_pretrained(folder)
    rename_keys(folder, spec.is_published)
    if spec.is_published:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config.pop("tie_word_embeddings")
        config["torch_dtype"] = config.pop("dtype")
        write_json(path, config)


def rename_keys(folder, is_published):
    path = folder / "model.safetensors"
    weights = {}
    for key, value in load_file(path).items():
        for published, name in PREFIXES.items():
            old, new = (name, published) if is_published else (published, name)
            if key.startswith(old):
                key = new + key[len(old):]
                break
        weights[key] = value
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_text_files(folder, tokenizer):
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    added = {str(tokenizer.token_to_id(text)): {
        "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for text in SPECIAL}
    write_json(folder / "tokenizer_config.json", {
        "added_tokens_decoder": added, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **NAMED,
        "extra_special_tokens": NAMED, "clean_up_tokenization_spaces": False, "model_max_length": 2048,
        "tokenizer_class": "Qwen2Tokenizer"})
    end = tokenizer.token_to_id("<|im_end|>")
    write_json(folder / "generation_config.json", {"eos_token_id": [end, tokenizer.token_to_id("<|endoftext|>")]})
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_processors(spec, folder):
    shared = {"size": {"height": spec.side, "width": spec.side}, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
              "image_std": [0.229, 0.224, 0.225]}
    write_json(folder / "preprocessor_config.json", {
        **shared, "image_processor_type": "GotOcr2ImageProcessorFast", "processor_class": "InternVLProcessor",
        "crop_to_patches": False, "min_patches": spec.patches[0], "max_patches": spec.patches[1]})
    write_json(folder / "video_preprocessor_config.json", {
        **shared, "video_processor_type": "InternVLVideoProcessor", "num_frames": 3})
    write_json(folder / "processor_config.json", {
        "image_seq_length": tile_tokens(spec), "processor_class": "InternVLProcessor"})


def load(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def picture(height, width, seed):
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)


# A wide picture, one that is enlarged to many tiles, a square one, and a clip.
PICTURES = [(29, 50, 1), (9, 12, 2), (15, 15, 3)]
CLIP = (22, 30, 3)


def clip_frames():
    return numpy.stack([picture(CLIP[0], CLIP[1], 100 + i) for i in range(CLIP[2])])


def shown():
    """The pictures, and the frames of the clip."""
    pictures = {f"picture.{i}": torch.from_numpy(picture(*size)) for i, size in enumerate(PICTURES)}
    return pictures | {"clip": torch.from_numpy(clip_frames())}


def prompts():
    """Content of the user's turn of each prompt: numbers of pictures, "clip", and texts."""
    return [["What colour is"], [0, "How many dogs are there?"], ["First ", 1, " then ", 0, 2, "?"], ["clip", "And now? "]]


def make_processor(folder):
    return AutoProcessor.from_pretrained(folder, use_fast=False)


def encode(folder, content):
    processor = make_processor(folder)
    parts, images, clips = [], [], []
    for part in content:
        if part == "clip":
            parts.append({"type": "video"})
            clips.append(torch.from_numpy(clip_frames()).permute(0, 3, 1, 2))
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
    inputs = processor(text=[rendered], images=images or None, return_tensors="pt", **options)
    return {key: inputs[key] for key in ("input_ids", "attention_mask", "pixel_values") if key in inputs}


def golden(spec, folder):
    inputs = [encode(folder, content) for content in prompts()]
    found = run(load(folder), inputs, kept_pixels=(1, 3))  # of the second the features tell as well
    kept = {key: value for key, value in found.items()
            if not key.startswith("grad.") or any(part in key for part in KEPT_GRADIENTS)}
    return shown() | kept


def run(model, prompts, kept_pixels):
    """Every stage of each prompt, and all gradients of their mean loss."""
    golden, losses = {}, []
    model.zero_grad(set_to_none=True)
    for number, inputs in enumerate(prompts):
        output = model(**inputs, output_hidden_states=True, use_cache=False)
        ids = inputs["input_ids"]
        loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:])
        (loss / len(prompts)).backward()
        losses.append(loss.detach())
        golden |= {f"ids.{number}": ids, f"hidden.{number}": output.hidden_states[-1][:, -24:].detach(),
                   f"logits.{number}": output.logits[:, -3:].detach()}
        if "pixel_values" in inputs:
            pixels = inputs["pixel_values"]
            if number in kept_pixels:
                golden[f"pixel_values.{number}"] = pixels
            with torch.no_grad():
                golden[f"features.{number}"] = model.model.get_image_features(pixels).pooler_output.flatten(0, 1)
        golden |= greedy(model, inputs, number)
    golden["losses"] = torch.stack(losses)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            golden["grad." + name] = parameter.grad.clone()
    return golden


KEPT_GRADIENTS = ("layer.0.attention.q_proj", "projection_layer", "lambda_", "cls_token", "position_embeddings",
                  "patch_embeddings", "layer.1.mlp", "layernorm_after", "multi_modal_projector", "layers.0.self_attn",
                  "language_model.norm")


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

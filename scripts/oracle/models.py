"""Tiny random SmolVLM / Idefics3 checkpoints.

A Spec says what one checkpoint looks like; build() makes the transformers model with every
parameter random (norm weights and biases too) and scaled so that activations stay O(1);
save() writes a Hugging Face folder from it. load() is from_pretrained in float32 on the CPU.
"""
import dataclasses
import json
import math
import shutil

import torch
from transformers import AutoModelForImageTextToText, Idefics3Config, SmolVLMConfig
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

from . import granite, text


@dataclasses.dataclass
class Spec:
    name: str
    seed: int
    vision: dict
    text: dict
    scale_factor: int
    longest_edge: int
    family: str = "smolvlm"
    tied: bool = False
    vocab_size: int = text.VOCAB
    shard_size: str = "1GB"
    dtype: torch.dtype = torch.float32
    published_config: bool = False  # the key names of the published files (transformers 4.47)
    jinja_template: bool = False
    granite: bool = False  # tokens and template of Granite-Docling (granite.py)
    extra_eos: list = dataclasses.field(default_factory=list)  # generation ends on these too

    @property
    def tile(self):
        return self.vision["image_size"]

    @property
    def end_ids(self):
        return [text.PAD_ID if self.granite else text.EOS_ID, *self.extra_eos]

    @property
    def tokens_per_image(self):
        grid = self.vision["image_size"] // self.vision["patch_size"]
        return (grid // self.scale_factor) ** 2

    @property
    def processor_prefix(self):
        return "SmolVLM" if self.family == "smolvlm" else "Idefics3"


def make_config(spec):
    vision = {"num_channels": 3, **spec.vision}
    text_config = {
        "model_type": "llama",
        "vocab_size": spec.vocab_size,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512,
        "pad_token_id": text.PAD_ID,
        "tie_word_embeddings": spec.tied,
        **spec.text,
    }
    cls = SmolVLMConfig if spec.family == "smolvlm" else Idefics3Config
    return cls(
        vision_config=vision,
        text_config=text_config,
        scale_factor=spec.scale_factor,
        image_token_id=text.IMAGE_ID,
        tie_word_embeddings=spec.tied,
        use_cache=False,
    )


def fill(name, shape, generator, tied):
    """Random values for one parameter, by what it is.

    A tied embedding is smaller, and the connector with it: otherwise the last token's own row
    wins every step.
    """
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.3 * values + (0.0 if name.endswith("bias") else 1.0)
    if "embed_tokens" in name:
        return values * (0.3 if tied else 1.0)
    if "position_embedding" in name:
        return 0.7 * values
    gain = 2.5 if "lm_head" in name else 0.4 if tied and "connector" in name else 1.3
    return values * (gain / math.sqrt(math.prod(shape[1:])))


def build(spec):
    config = make_config(spec)
    cls = (SmolVLMForConditionalGeneration if spec.family == "smolvlm"
           else Idefics3ForConditionalGeneration)
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(fill(name, tuple(parameter.shape), generator, spec.tied))
    return model.to(spec.dtype)


def save(spec, folder):
    """Writes the whole checkpoint folder; an older one is replaced."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model = build(spec)
    model.save_pretrained(folder, max_shard_size=spec.shard_size)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    if spec.published_config:
        write_published_config(spec, folder)
    text.write_text_files(folder, spec.processor_prefix, spec.jinja_template)
    if spec.granite:
        granite.rename_tokens(folder)
    write_processor_files(spec, folder)
    return folder


def write_published_config(spec, folder):
    """config.json as transformers 4.47 wrote it, with the leftovers that readers must ignore."""
    text_config = {
        "_flash_attn_2_enabled": True,
        "architectures": ["VLlama3ForCausalLM"],
        "model_type": "llama",
        "pad_token_id": text.PAD_ID,
        "perceiver_config": {"model_type": "vllama3", "num_key_value_heads": 1},
        "pixel_shuffle_factor": spec.scale_factor,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512,
        "torch_dtype": "bfloat16",
        "use_resampler": False,
        "vocab_size": spec.vocab_size,
        **spec.text,
    }
    vision = {"model_type": "idefics3_vision" if spec.family == "idefics3" else "smolvlm_vision"}
    vision |= {"max_image_size": {"longest_edge": spec.tile}, "tie_word_embeddings": False}
    vision |= {"size": {"longest_edge": spec.longest_edge}, **spec.vision}
    text.write_json(folder / "config.json", {
        "architectures": [spec.processor_prefix + "ForConditionalGeneration"],
        "image_token_id": text.IMAGE_ID,
        "model_type": spec.family,
        "pad_token_id": 128002,
        "scale_factor": spec.scale_factor,
        "text_config": text_config,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": str(spec.dtype).removeprefix("torch."),
        "transformers_version": "4.47.1",
        "use_cache": False,
        "vision_config": vision,
        "vocab_size": spec.vocab_size,
    })


def image_settings(spec):
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": spec.tile},
        "resample": 1,
        "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": spec.longest_edge},
    }


def write_processor_files(spec, folder):
    text.write_json(folder / "generation_config.json", {
        "_from_model_config": True,
        "bos_token_id": 0,
        "eos_token_id": spec.end_ids if spec.extra_eos else spec.end_ids[0],
        "pad_token_id": text.PAD_ID,
        "transformers_version": "4.47.1",
    })
    video = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": spec.tile}}
    processor = spec.processor_prefix + "Processor"
    text.write_json(folder / "preprocessor_config.json", {
        **image_settings(spec),
        "image_processor_type": spec.processor_prefix + "ImageProcessor",
        "processor_class": processor,
        **({"video_sampling": video} if spec.family == "smolvlm" else {}),
    })
    text.write_json(folder / "processor_config.json", {
        "image_seq_len": spec.tokens_per_image,
        "processor_class": processor,
    })


def load(folder, attention="sdpa"):
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def stored_shapes(folder):
    """{key: shape} over all safetensors files of a checkpoint."""
    shapes = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        shapes |= {key: record["shape"] for key, record in header.items()}
    return shapes

"""What the oracles of families with pictures share: tokenizers, random weights, the media that are shown, and what
transformers gives for them, stage by stage."""
import dataclasses
import shutil

import numpy
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText
from transformers.video_utils import VideoMetadata

from .models import fill
from .text import CORPUS, write_json
from .text_models import QWEN_PATTERN


def make_tokenizer(special):
    """Of Qwen's kind, with `special` behind the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.add_special_tokens(special)
    return tokenizer


def added_token(content):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def write_tokenizer(folder, tokenizer, special, named):
    """tokenizer.json, its config and the ids that end an answer."""
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", {
        "added_tokens_decoder": {str(tokenizer.token_to_id(text)): added_token(text) for text in special},
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **named, "clean_up_tokenization_spaces": False,
        "model_max_length": 2048, "tokenizer_class": "Qwen2Tokenizer"})
    ends = [tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")]
    write_json(folder / "generation_config.json", {"eos_token_id": ends})


def save_model(folder, config, seed, tied):
    """Random weights and the config, in an empty folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model = AutoModelForImageTextToText.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(fill(name, tuple(parameter.shape), generator, tied))
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)


def load(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def picture(height, width, seed):
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)


@dataclasses.dataclass
class Shown:
    """Pictures as (height, width, seed), and a clip as (height, width, frames) at 2 frames a second."""
    pictures: list
    clip: tuple

    def frames(self):
        height, width, count = self.clip
        return numpy.stack([picture(height, width, 100 + i) for i in range(count)])

    def tensors(self):
        pictures = {f"picture.{i}": torch.from_numpy(picture(*size)) for i, size in enumerate(self.pictures)}
        return pictures | {"clip": torch.from_numpy(self.frames())}

    def prompts(self):
        """Content of the user's turn of each prompt: numbers of pictures, "clip", and texts."""
        return [["What colour is"], [0, "How many dogs are there?"], ["First ", 1, " then ", *[0, 2][:len(self.pictures) - 1], "?"],
                ["clip", "And now? "]]

    def encode(self, processor, content):
        parts, images, clips = [], [], []
        for part in content:
            if part == "clip":
                parts.append({"type": "video"})
                clips.append(torch.from_numpy(self.frames()).permute(0, 3, 1, 2))
            elif isinstance(part, int):
                parts.append({"type": "image"})
                images.append(Image.fromarray(picture(*self.pictures[part])))
            else:
                parts.append({"type": "text", "text": part})
        rendered = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        options = {}
        if clips:
            height, width, count = self.clip
            metadata = [VideoMetadata(total_num_frames=count, fps=2.0, duration=count / 2, width=width, height=height,
                                      frames_indices=list(range(count)))]
            options = dict(videos=clips, videos_kwargs=dict(do_sample_frames=False, video_metadata=metadata))
        return dict(processor(text=[rendered], images=images or None, return_tensors="pt", **options))


def run(model, prompts, more):
    """Every stage of each prompt, what `more` gives for (inputs, number), and the gradients of the mean loss."""
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
        golden |= {f"{key}.{number}": value for key, value in more(inputs, number).items()}
        golden |= greedy(model, inputs, number)
    golden["losses"] = torch.stack(losses)
    return golden | {"grad." + name: parameter.grad.clone() for name, parameter in model.named_parameters()
                     if parameter.grad is not None}


def keep_gradients(golden, parts):
    return {key: value for key, value in golden.items()
            if not key.startswith("grad.") or any(part in key for part in parts)}


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

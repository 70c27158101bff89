"""Prompts and whole answers of a fixture checkpoint, from the processor classes of transformers.

make_processor() -> a processor with the Pillow image back end and the folder's own tokenizer.json
(for idefics3 transformers would rebuild the tokenizer without the digit splitting).
conversation_golden() renders conversations; generate_golden() answers single turns greedily.
"""
import json

import torch
from PIL import Image
from transformers import Idefics3Processor, PreTrainedTokenizerFast, SmolVLMProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

from . import granite, text

IMAGE = {"type": "image"}


def words(value):
    return {"type": "text", "text": value}


def turn(role, *parts):
    return {"role": role, "content": list(parts)}


# (name, add_generation_prompt, pictures, messages)
CONVERSATIONS = [
    ("text", True, [], [turn("user", words("How many dogs are there in 2024?"))]),
    ("one_image", True, ["square"], [turn("user", IMAGE, words("What is this?"))]),
    ("text_first", True, ["square"], [turn("user", words("Describe"), IMAGE)]),
    ("wide", True, ["wide"], [turn("user", IMAGE, words("Describe the image."))]),
    ("tall", True, ["tall"], [turn("user", IMAGE, words("Describe the image."))]),
    ("several_images", True, ["square", "wide", "square"],
     [turn("user", words("Compare "), IMAGE, words(" with "), IMAGE, IMAGE, words("."))]),
    ("turns", False, ["tall", "square"], [
        turn("user", IMAGE, words("What colour?")), turn("assistant", words("Red\nand 12 blue.")),
        turn("user", words("And"), IMAGE, words("?")),
        turn("assistant", words("na\u00efve \u65e5"))]),
    ("system", True, ["square"], [
        turn("system", words("Be brief.")), turn("user", IMAGE, words("\n\n It's  3?"))]),
]

# (name, system, prompt, pictures): one user turn, pictures first
QUESTIONS = [
    ("text", None, "How many dogs?", []),
    ("one_image", None, "What is this?", ["square"]),
    ("system", "Be brief.", "What is this?", ["square"]),
    ("wide", None, "Describe the image.", ["wide"]),
    ("tall", None, "Describe the image.", ["tall"]),
    ("two_images", None, "Compare the images.", ["square", "tall"]),
]


def make_tokenizer(folder):
    """The pipeline of tokenizer.json as it is, whatever class the config files name."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    roles = {role: config[role] for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), **roles, padding_side="left",
        clean_up_tokenization_spaces=False)


def make_processor(spec, folder):
    shared = dict(tokenizer=make_tokenizer(folder), image_seq_len=spec.tokens_per_image,
                  chat_template=granite.CHAT_TEMPLATE if spec.granite else text.CHAT_TEMPLATE)
    if spec.family == "idefics3":
        return Idefics3Processor(Idefics3ImageProcessorPil.from_pretrained(folder), **shared)
    return SmolVLMProcessor(SmolVLMImageProcessorPil.from_pretrained(folder),
                            video_processor=SmolVLMVideoProcessor(), **shared)


def encode(processor, prompt, pictures):
    """The processor's model inputs for one prompt."""
    images = [[picture.convert("RGB") for picture in pictures]] if pictures else None
    output = processor(text=[prompt], images=images, return_tensors="pt",
                       add_special_tokens=False)
    wanted = ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")
    return {name: output[name] for name in wanted if name in output}


def open_pictures(folder, names):
    return [Image.open(folder / f"{name}.png") for name in names]


def conversation_golden(processor, picture_folder):
    records = []
    for name, generation_prompt, pictures, messages in CONVERSATIONS:
        prompt = processor.apply_chat_template(
            messages, add_generation_prompt=generation_prompt, tokenize=False)
        inputs = encode(processor, prompt, open_pictures(picture_folder, pictures))
        ids = inputs["input_ids"][0].tolist()
        records.append({
            "name": name, "add_generation_prompt": generation_prompt, "images": pictures,
            "messages": messages, "prompt": prompt,
            "expanded": processor.tokenizer.decode(ids, skip_special_tokens=False),
            "input_ids": ids})
    return records


def chat(question, system, image_count):
    messages = [turn("system", words(system))] if system else []
    return [*messages, turn("user", *[IMAGE] * image_count, words(question))]


def answer(model, processor, prompt, pictures, max_new_tokens):
    """Greedy answer of one prompt, as the JSON row of `vlm generate` names its parts."""
    inputs = encode(processor, prompt, pictures)
    with torch.no_grad():
        result = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False,
                                output_logits=True, return_dict_in_generate=True)
    length = inputs["input_ids"].shape[1]
    ids = result.sequences[0, length:].tolist()
    logprobs = torch.stack(result.logits)[:, 0].log_softmax(-1)
    top = logprobs.topk(2, dim=-1).values
    eos = model.generation_config.eos_token_id
    stopped = ids[-1] in (eos if isinstance(eos, list) else [eos])
    return {
        "prompt_token_ids": inputs["input_ids"][0].tolist(),
        "token_ids": ids,
        "token_logprobs": [logprobs[i, token].item() for i, token in enumerate(ids)],
        "text": processor.tokenizer.decode(ids, skip_special_tokens=True),
        "kept_text": processor.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=False),
        "finish_reason": "stop" if stopped else "length",
        "margin": (top[:, 0] - top[:, 1]).min().item(),
    }


def generate_golden(model, processor, picture_folder, max_new_tokens=8, keeps_special_tokens=False):
    records = []
    for name, system, question, pictures in QUESTIONS:
        prompt = processor.apply_chat_template(
            chat(question, system, len(pictures)), add_generation_prompt=True, tokenize=False)
        found = answer(model, processor, prompt, open_pictures(picture_folder, pictures),
                       max_new_tokens)
        assert found.pop("margin") > 2e-3, f"{name}: two tokens too close, change the question"
        if not keeps_special_tokens:
            del found["kept_text"]
        records.append({"name": name, "system": system, "question": question,
                        "images": pictures, "max_new_tokens": max_new_tokens, **found})
    return records

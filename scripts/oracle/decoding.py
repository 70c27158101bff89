"""Decoding of transformers: logits processors on random scores, beam search on a checkpoint.

processor_golden() draws option sets and applies the processors that generate() would build for
them; beam_case() answers one prompt with beams; random_beam_options() draws options for it.
"""
import random

import torch
from transformers import GenerationConfig
from transformers.generation import GenerationMixin, LogitsProcessorList

from . import prompts

VOCAB = 48
ROWS = 3


def random_processor_options(chance):
    """Options of GenerationConfig, at most a few of them set."""
    options = {}

    def maybe(name, values, share=0.35):
        if chance.random() < share:
            options[name] = chance.choice(values)

    maybe("repetition_penalty", [0.7, 1.2, 1.9])
    maybe("no_repeat_ngram_size", [1, 2, 3])
    maybe("min_new_tokens", [2, 6, 9])
    if chance.random() < 0.35:
        options["bad_words_ids"] = [[chance.randrange(VOCAB) for _ in range(chance.randint(1, 3))]
                                    for _ in range(4)]
    maybe("do_sample", [True], 0.7)
    if options.get("do_sample"):
        maybe("temperature", [0.3, 0.9, 2.5], 0.5)
        maybe("top_k", [1, 3, 10, 0, 200], 0.5)
        maybe("top_p", [0.05, 0.5, 0.9, 0.99], 0.5)
        maybe("min_p", [0.0, 0.02, 0.2, 1.0])
        maybe("typical_p", [0.1, 0.5, 0.95])
        maybe("num_beams", [3], 0.3)
    return options


def processor_golden(count=150, seed=5):
    """(tensors, records): scores [R, V] in and out, and what belongs to them."""
    chance = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    tensors, records = {}, []
    for number in range(count):
        options = random_processor_options(chance)
        eos = chance.sample(range(VOCAB), chance.choice([1, 1, 2]))
        prompt = chance.choice([1, 4, 9])
        # Few different ids, so that n-grams repeat and words are found.
        sequences = torch.randint(0, 12, (ROWS, prompt + 5), generator=generator)
        if "bad_words_ids" in options:
            options["bad_words_ids"][0] = [*sequences[0, -1:].tolist(), chance.randrange(VOCAB)]
        scores = torch.randn((ROWS, VOCAB), generator=generator) * 3
        config = GenerationConfig(eos_token_id=eos, **{"top_k": 50, **options})
        config._eos_token_tensor = torch.tensor(eos)
        processed = build_processors(config, prompt)(sequences, scores.clone())
        tensors[f"{number}.scores"] = scores
        tensors[f"{number}.processed"] = processed.clamp_min(-1e30)  # -inf is no golden value
        tensors[f"{number}.sequences"] = sequences
        records.append({"prompt_tokens": prompt, "eos_token_id": eos, **options})
    return tensors, records


class Host(GenerationMixin):
    """As much of a model as _get_logits_processor asks for."""

    class config:
        is_encoder_decoder = False


def build_processors(config, prompt):
    return Host()._get_logits_processor(
        generation_config=config, input_ids_seq_length=prompt,
        logits_processor=LogitsProcessorList(), device="cpu")


def random_beam_options(chance):
    beams = chance.choice([2, 3, 4, 6])
    options = {"num_beams": beams, "num_return_sequences": chance.randint(1, beams),
               "length_penalty": chance.choice([-1.0, 0.0, 0.6, 1.0, 2.0]),
               "early_stopping": chance.choice([True, False, "never"]),
               "max_new_tokens": chance.choice([1, 5, 11])}
    for name, values in (("repetition_penalty", [1.3]), ("no_repeat_ngram_size", [2, 3]),
                         ("min_new_tokens", [3])):
        if chance.random() < 0.3:
            options[name] = chance.choice(values)
    return options


def beam_case(model, processor, chat, pictures, options):
    """Hypotheses of one prompt, the best first: ids up to their end, and scores."""
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = prompts.encode(processor, prompt, pictures)
    with torch.no_grad():
        result = model.generate(**inputs, do_sample=False, return_dict_in_generate=True,
                                output_scores=True, **options)
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    answers = []
    for row in result.sequences[:, inputs["input_ids"].shape[1]:].tolist():
        ends = [i for i, token in enumerate(row) if token in eos]
        answers.append(row[:ends[0] + 1] if ends else row)
    return {"prompt_token_ids": inputs["input_ids"][0].tolist(), "token_ids": answers,
            "scores": result.sequences_scores.tolist(),
            "texts": [processor.tokenizer.decode(ids, skip_special_tokens=True)
                      for ids in answers]}


def likely_eos(model, processor, question, count=2):
    """Ids to end on that beams do meet: tokens of a greedy answer's late part."""
    prompt = processor.apply_chat_template(prompts.chat(question, None, 0),
                                           add_generation_prompt=True, tokenize=False)
    ids = prompts.answer(model, processor, prompt, [], 12)["token_ids"]
    return list(dict.fromkeys(ids[4:]))[:count]


def beam_golden(model, processor, picture_folder, seed, count=6):
    chance = random.Random(seed)
    records = []
    eos = likely_eos(model, processor, prompts.QUESTIONS[0][2])
    model.generation_config.eos_token_id = eos
    for name, system, question, names in prompts.QUESTIONS:
        for _ in range(count):
            options = random_beam_options(chance)
            found = beam_case(model, processor, prompts.chat(question, system, len(names)),
                              prompts.open_pictures(picture_folder, names), options)
            records.append({"name": name, "system": system, "question": question, "images": names,
                            "eos_token_id": eos, "options": options, **found})
    return records

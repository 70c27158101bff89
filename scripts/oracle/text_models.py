"""Tiny random text models (Llama, Qwen2, Qwen3, Phi-3) with tokenizers of their kind, and what transformers gives.

save() writes a checkpoint folder; golden() runs it: hidden states, logits, loss and gradients of two prompts, greedy
answers, and one LoRA adapter with the logits and the losses of ten steps. Sizes tell mistakes apart: heads, key-value
heads and layers differ, the heads together are wider or narrower than the hidden size, prompts are longer than the
original positions of the long kinds of rotation. Everything is seeded.
"""
import dataclasses
import json
import shutil

import torch
from peft import LoraConfig, PeftModel
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from . import adapters, training
from .models import fill
from .text import CORPUS, write_json

LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
# That of o200k: words by their case, contractions with the word.
PHI_PATTERN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
               r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
               r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# A template of Llama 3's kind: a system turn with today's date, trimmed texts.
LLAMA_TEMPLATE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
# Of Qwen3's kind: the last answer gets an empty thought, earlier thoughts are dropped.
QWEN3_TEMPLATE = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
PHI_TEMPLATE = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
                "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}")

ADAPTER = dict(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")


@dataclasses.dataclass
class TextSpec:
    name: str
    seed: int
    config: dict  # without ids and vocabulary
    pattern: str
    special: list  # behind the vocabulary
    names: dict    # bos_token, eos_token, pad_token
    ends: list     # tokens that end an answer
    template: str = ""  # none: a base model
    rows: int = 0  # of the embedding beyond the tokenizer's
    adds_bos: bool = False
    older_config: bool = False  # rope_theta and rope_scaling, as on the hub
    dtype: torch.dtype = torch.float32


def size(**changes):
    return dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=3, head_dim=8, max_position_embeddings=256, rms_norm_eps=1e-5) | changes


SPECS = [
    TextSpec("llama_tiny", 42, size(
        model_type="llama", hidden_size=36, tie_word_embeddings=True, rope_parameters=dict(
            rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=16)),
        LLAMA3_PATTERN, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                         "<|eom_id|>", "<|eot_id|>"],
        dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"), ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
        LLAMA_TEMPLATE, adds_bos=True, older_config=True),
    TextSpec("qwen2_tiny", 43, size(
        model_type="qwen2", tie_word_embeddings=False, num_key_value_heads=2, num_attention_heads=4, head_dim=6,
        num_hidden_layers=3, hidden_size=24, intermediate_size=36,
        rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=2.5)),
        QWEN_PATTERN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        dict(eos_token="<|endoftext|>", pad_token="<|endoftext|>"), ["<|endoftext|>"], rows=5),
    TextSpec("qwen3_tiny", 47, size(
        model_type="qwen3", tie_word_embeddings=True, num_attention_heads=4, num_key_value_heads=1, head_dim=10,
        rope_parameters=dict(rope_type="default", rope_theta=300.0)),
        QWEN_PATTERN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        dict(eos_token="<|im_end|>", pad_token="<|endoftext|>"), ["<|im_end|>", "<|endoftext|>"], QWEN3_TEMPLATE,
        rows=3),
    # 8 of 16 dims turn; half of a greedy answer lies behind the switch at 16.
    TextSpec("phi3_tiny", 53, size(
        model_type="phi3", tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=3,
        head_dim=None, max_position_embeddings=384, original_max_position_embeddings=16, partial_rotary_factor=0.5,
        rope_parameters=dict(rope_type="longrope", rope_theta=50.0, short_factor=[1.0, 1.05, 1.2, 1.4],
                             long_factor=[1.1, 2.0, 4.5, 9.0], partial_rotary_factor=0.5)),
        PHI_PATTERN, ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>", "<|end|>"],
        dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
        ["<|end|>", "<|endoftext|>"], PHI_TEMPLATE, older_config=True),
]


def make_tokenizer(spec):
    tokenizer = Tokenizer(models.BPE(ignore_merges=spec.adds_bos))
    if spec.config["model_type"].startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(spec.pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=not text.endswith("think>"))
                                  for text in spec.special])
    if spec.adds_bos:
        bos = spec.names["bos_token"]
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                          special_tokens=[(bos, tokenizer.token_to_id(bos))])])
    return tokenizer


def make_config(spec, tokenizer):
    settings = {key: value for key, value in spec.config.items() if key != "model_type" and value is not None}
    ids = {name + "_id": tokenizer.token_to_id(text) for name, text in spec.names.items()}
    config = AutoConfig.for_model(spec.config["model_type"], vocab_size=tokenizer.get_vocab_size() + spec.rows,
                                  **ids, **settings)
    config.use_cache = False
    return config


def build(config, spec):
    """Every parameter random: norms and biases too, so that leaving one out shows."""
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(fill(name, tuple(parameter.shape), generator, config.tie_word_embeddings))
    return model.to(spec.dtype)


def save(spec, folder):
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(spec)
    config = make_config(spec, tokenizer)
    build(config, spec).save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    if spec.older_config:
        write_older_config(folder / "config.json")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    added = {str(tokenizer.token_to_id(text)): {
        "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
        "special": not text.endswith("think>")} for text in spec.special}
    write_json(folder / "tokenizer_config.json", {
        "added_tokens_decoder": added, **spec.names, "clean_up_tokenization_spaces": False,
        "model_max_length": 256, "tokenizer_class": "PreTrainedTokenizerFast"})
    ends = [tokenizer.token_to_id(text) for text in spec.ends]
    write_json(folder / "generation_config.json", {"eos_token_id": ends if len(ends) > 1 else ends[0]})
    if spec.template:
        (folder / "chat_template.jinja").write_text(spec.template, encoding="utf-8")
    return folder


def write_older_config(path):
    """The keys of the published files: rope_theta and rope_scaling, torch_dtype."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["partial_rotary_factor"] = rope.pop("partial_rotary_factor", 1.0)
    if config["model_type"] == "phi3":
        rope["type"] = rope.pop("rope_type")
        rope.pop("original_max_position_embeddings", None)
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    write_json(path, dict(sorted(config.items())))


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


TEXTS = ["The first is tall, the second is wide and dark. How many dogs", "What colour is"]


def encode(folder, text):
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def make_rows(folder):
    """Two prompts: one beyond the original positions, one that an answer takes there."""
    rows = [encode(folder, TEXTS[0]), encode(folder, TEXTS[1])]
    return [torch.tensor([row]) for row in rows]


def forward_golden(model, rows):
    """Row by row, as alone as a sequence can be: LongRoPE of a batch goes by its longest row."""
    golden, total, labels = {}, 0.0, sum(row.shape[1] - 1 for row in rows)
    model.zero_grad(set_to_none=True)
    for number, row in enumerate(rows):
        output = model(row, output_hidden_states=True, use_cache=False)
        loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], row[0, 1:], reduction="sum") / labels
        loss.backward()
        total += loss.item()
        golden |= {f"ids.{number}": row, f"hidden.{number}": output.hidden_states[-1].detach(),
                   f"logits.{number}": output.logits[:, -3:].detach()}
    golden["loss"] = torch.tensor([total])
    for name, parameter in model.named_parameters():
        golden["grad." + name] = parameter.grad.clone()
    model.zero_grad(set_to_none=True)
    return golden


def greedy_golden(model, rows, steps=14):
    golden = {}
    for number, row in enumerate(rows):
        with torch.no_grad():
            result = model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=steps, do_sample=False,
                                    use_cache=True, eos_token_id=None, pad_token_id=0, output_logits=True,
                                    return_dict_in_generate=True)
        logits = torch.stack(result.logits)[:, 0]
        top = logits.topk(2, dim=-1).values
        margin = (top[:, 0] - top[:, 1]).min()
        assert margin > 5e-3, f"change the seed: greedy margin {margin}"
        ids = result.sequences[:, row.shape[1]:]
        golden[f"greedy_ids.{number}"] = ids
        golden[f"greedy_logprobs.{number}"] = logits.log_softmax(-1).gather(1, ids.T).T.contiguous()
    with torch.no_grad():
        beams = model.generate(rows[1], attention_mask=torch.ones_like(rows[1]), max_new_tokens=9, num_beams=3,
                               num_return_sequences=3, do_sample=False, use_cache=True, eos_token_id=None,
                               pad_token_id=0, output_scores=True, return_dict_in_generate=True)
    return golden | {"beam_ids": beams.sequences[:, rows[1].shape[1]:], "beam_scores": beams.sequences_scores}


def adapter_golden(folder, rows, seed):
    """A PEFT adapter on every linear layer but the head; the losses of ten steps from it."""
    start = folder / "adapter"
    adapters.make_adapter(load(folder), start, ADAPTER, seed, folder.name)
    model = PeftModel.from_pretrained(load(folder), start).eval()
    with torch.no_grad():
        golden = {"adapter_logits": model(rows[1], use_cache=False).logits[:, -3:]}
    model = PeftModel.from_pretrained(load(folder), start, is_trainable=True)
    batches = [{"input_ids": row, "labels": row.clone()} for row in rows]
    record = training.run(model, batches, 10)
    return golden | {"train_losses": record["losses"], "train_grad_norms": record["grad_norms"]}


def golden(spec, folder):
    rows = make_rows(folder)
    model = load(folder)
    return {**forward_golden(model, rows), **greedy_golden(model, rows), **adapter_golden(folder, rows, spec.seed + 1)}


CHATS = [
    [("user", "How many dogs are there?")],
    [("system", " Be brief. "), ("user", "naïve café 日本語 12345"), ("assistant", "It's 3."), ("user", "  And\n\nnow? ")],
    [("user", "Hi"), ("assistant", "yes"), ("user", "no"), ("assistant", "No, left.\n")],
]


def chat_golden(spec, folder):
    """Prompts and whole conversations as transformers renders and encodes them."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    records = []
    for chat in CHATS if spec.template else []:
        messages = [{"role": role, "content": content} for role, content in chat]
        for is_prompt in (True, False):
            if is_prompt == (chat[-1][0] == "assistant"):
                continue
            options = dict(add_generation_prompt=is_prompt, date_string="26 Jul 2024", enable_thinking=False)
            records.append({"messages": messages, "is_prompt": is_prompt,
                            "text": tokenizer.apply_chat_template(messages, tokenize=False, **options),
                            "ids": tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)})
    text = " naïve  café\n\t12345 don't IT'S 日本語<|im_end|> x"
    return {"chats": records, "text": text, "ids": tokenizer(text)["input_ids"]}

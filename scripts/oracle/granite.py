"""A checkpoint as Granite-Docling's: other special tokens, DocTags among them, its template, and an end of utterance
outside of the embedding.

rename_tokens() changes the text files that text.write_text_files() has made; ids stay.
"""
import json

from . import text

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}
{{- '<image>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|end_of_text|>
' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_of_role|>assistant' -}}
{%- if controls -%}{{- ' ' + controls | tojson() -}}{%- endif -%}
{{- '<|end_of_role|>' -}}
{%- endif -%}"""

TAGS = ["<|end_of_role|>", "<doctag>", "</doctag>", "<text>", "</text>", "<section_header_level_1>",
        "</section_header_level_1>", "<otsl>", "</otsl>", "<fcel>", "<ched>", "<nl>", "<loc_1>", "<loc_2>"]
NAMES = {"<|endoftext|>": "<|unk|>", "<|im_start|>": "<|start_of_role|>", "<|im_end|>": "<|end_of_text|>",
         **dict(zip(text.ROW_COL[-len(TAGS):], TAGS, strict=True))}
ROLES = {"bos_token": "<|start_of_role|>", "eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>",
         "unk_token": "<|unk|>"}


def rename_tokens(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        content = (folder / name).read_text(encoding="utf-8")
        for old, new in NAMES.items():
            content = content.replace(f'"{old}"', f'"{new}"')
        (folder / name).write_text(content, encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    text.write_json(folder / "tokenizer_config.json", {**config, **ROLES})
    (folder / "special_tokens_map.json").unlink()
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")

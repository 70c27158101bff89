"""Chat templates and conversations that make_text_fixtures.py and parity_text.py put to transformers and to us."""

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
TEXT, IMAGE, VIDEO = {"type": "text", "text": "What is this?"}, {"type": "image"}, {"type": "video"}
CONVERSATIONS = [
    [{"role": "user", "content": [IMAGE, TEXT]}],
    [{"role": "user", "content": [TEXT, IMAGE]}],
    [
        {"role": "user", "content": [IMAGE, IMAGE, TEXT]},
        {"role": "assistant", "content": [{"type": "text", "text": " A cat.\n"}]},
    ],
    [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": [TEXT]}],
    [
        {"role": "user", "content": [VIDEO, TEXT]},
        {"role": "assistant", "content": [TEXT]},
        {"role": "user", "content": [IMAGE]},
    ],
    [
        {"role": "user", "content": "plain"},
        {"role": "assistant", "content": "ändern ß"},
        {"role": "user", "content": ""},
    ],
    [{"role": "USER", "content": []}],
    [{"role": "ünser role", "content": [{"type": "text", "text": "{{ 'no' }} {% x %} <image>"}]}],
    [],
]


def family_templates():
    """Templates of this family, described in docs and checkpoints, built from their parts."""
    from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

    published = DEFAULT_CHAT_TEMPLATE.replace("{% elif line['type'] == 'video' %}{{ '<video>' }}", "")
    assert "video" not in published
    yield "SmolVLM2", published
    yield "SmolVLM2 with video", DEFAULT_CHAT_TEMPLATE
    yield "first SmolVLM", published.replace("<|im_start|>", "{{ bos_token }}")
    yield "Idefics3", published.replace("<|im_start|>", "<|begin_of_text|>").replace(" | capitalize", ".capitalize()")
    yield "SmolLM2", (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n'"
        " + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    yield "namespace", (
        "{% set count = namespace(images=0) %}{% for m in messages %}{% if m.content is string %}"
        "{{ m.content }}{% else %}{% for c in m.content %}{% if c.type == 'image' or 'image' in c %}"
        "{% set count.images = count.images + 1 %}Picture {{ count.images }}: {% elif 'text' in c %}"
        "{{ c.text }}{% endif %}{% endfor %}{% endif %}{{ eos_token }}\n{% endfor %}"
    )


# Small templates, each about one thing; both sides must give the same text, or both an error.
CONSTRUCTS = [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "{# x #}\n a {#- y -#}  b",
    "  {%+ if true +%}\n x {% endif %}",
    "x {{- ' y ' -}} z",
    "x\n  {{ 1 }}\n y",
    "\r\na\r\n",
    "a\n\n",
    "{{ 'a' 'b' }}",
    "{{ 1 + 2 * 3 - 4 }}",
    "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }}",
    "{{ (1 + 2) * 3 }}",
    "{{ 'a' ~ 1 ~ none ~ true }}",
    "{{ 1 < 2 < 3 }} {{ 1 == true }} {{ 'a' < 'b' }}",
    "{{ 1 if false }}|{{ 1 if true else 2 }}",
    "{{ not true or true and false }}",
    "{{ 'a' in 'cat' }} {{ 'x' not in ['x'] }} {{ 'k' in {'k': 1} }}",
    "{{ [1, 2, 3][1] }} {{ [1, 2, 3][-1] }} {{ 'abc'[1] }}",
    "{{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'abc'[5:0:-2] }} {{ ([1, 2, 3][::-1]) | join('-') }} {{ 'abc'[-9:9:2] }}",
    "{{ 'abcdef'[1:3] }} {{ 'abc'[:-1] }} {{ 'abc'[1:] }} {{ ([1, 2, 3][1:]) | join('-') }}",
    "{{ 'häß'[1] }}{{ 'häß' | length }}",
    "{{ {'a': 1}.a }} {{ {'a': {'b': 2}}['a'].b }}",
    "{{ x }}|{{ x.y is defined }}",
    "{{ x is defined }} {{ messages is defined }}",
    "{{ x is undefined }} {{ none is none }} {{ 1 is number }} {{ 'a' is string }}",
    "{{ [] is iterable }} {{ {} is mapping }} {{ true is true }}",
    "{{ true is boolean }} {{ 1 is integer }} {{ true is integer }} {{ [] is sequence }} {{ 1 is not string }}",
    "{{ 'hello wORLD' | capitalize }} {{ 'hello wORLD-x (y' | title }} {{ 'aB' | upper | lower }}",
    "{{ '  x ' | trim }}|{{ 'xax' | trim('x') }}",
    "{{ [1, 2] | length }} {{ 'abc' | count }} {{ [3, 4] | first }} {{ [3, 4] | last }} {{ 'xyz' | first }}",
    "{{ ['a', 'b'] | join(', ') }} {{ [1, 2] | join }}",
    "{{ x | default('d') }} {{ '' | default('d') }} {{ '' | d('e', true) }}",
    "{{ 'a-b' | replace('-', '+') }}",
    "{{ ' a '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'xa'.strip('x') }}",
    "{{ 'aB'.upper() }}{{ 'aB'.lower() }}{{ 'ab cd'.title() }}{{ 'ab'.capitalize() }}",
    "{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('x') }}",
    "{{ 'a,b'.split(',') | last }} {{ '-'.join(['a', 'b']) }} {{ 'aa'.replace('a', 'b') }}",
    "{{ {'a': 1}.get('a') }} {{ {}.get('b', 2) }}",
    "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop.length }}{{ loop.revindex }}{{ loop.nextitem }} {% endfor %}",
    "{% for x in [] %}a{% else %}b{% endfor %}",
    "{% for c in 'hé' %}{{ c }}.{% endfor %}",
    "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [3, 4] %}{{ x }}{{ y }}{{ loop.last }}{% endfor %}{{ loop.first }}{% endfor %}",
    "{% set a = 1 %}{% for x in [1, 2] %}{% set a = a + x %}{{ a }}{% endfor %}{{ a }}",
    "{% if false %}{% elif 0 %}{% elif '' %}{% else %}e{% endif %}",
    "{% set n = namespace(v=1, w='x') %}{% for x in [1, 2] %}{% set n.v = n.v + x %}{% endfor %}{{ n.v }}{{ n.w }}",
    "{% generation %}x{% endgeneration %}",
    "{{ raise_exception('no') }}",
    "{{ x.y.z }}",
    "{{ 1 + 'a' }}",
    "{{ [] | first }}|",
    "{{ missing() }}",
    "{% for x in missing %}a{% endfor %}b",
    "{{ '\\n\\t\\'\\\"\\\\\\u00e9\\x41' }}",
    '{{ "it\'s" }}',
    "{{ loop }}",
    "{{ messages | length }}",
    "{{ messages[0].role if messages else 'none' }}",
    "{{ tools }}{{ 'a' if tools else 'b' }}",
    "{{ 'a' if not tools is defined }}",
    "{{ 2 == 2 and 3 != 4 }}",
    "{{ (1, 2) | join }}",
    "{{ 5 // 0 }}",
    "{% if x %}",
    "{% endif %}",
    "{{ 'a }}",
    "{{ a b }}",
    "{{ }}",
    "{% for %}",
    "{{ (1 }}",
    "{# x",
    "{{ {'a': {'b': {}}} | length }}",
    "{{ '}}' }}{{ '%}' }}",
    "{ { } } {x}",
    "{{ 'A' | lower == 'a' }}",
    "{{ true }} {{ True }} {{ none }} {{ None }}",
    "{{ 3 * 4 }}",
    "{{ '\u00a0 x\u2003' | trim }}|",
    "{{ 'ǆ' | capitalize }}",
]


def render(template, messages, add_generation_prompt, variables):
    """What transformers renders, or the exception it raises."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        return render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=add_generation_prompt, **variables
        )[0][0]
    except Exception as error:  # noqa: BLE001: any error is an error here
        return error

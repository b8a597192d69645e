"""Goldens of chat templates: conversations as transformers' `apply_chat_template` renders them.

    python xtask/goldens/chat.py data/goldens/chat

- `conversations.json`: conversations by name, each a list of messages {"role", "content"}, whose content is a
  list of parts {"type": "text", "text"} and {"type": "image"}.
- Folders of the families `chatml`, `llama3`, `mistral`, `smolvlm`, `idefics3`, `llava`, `qwen-vl` and
  `features`, which uses what else Jinja offers: the template in one of the files that folders have it in, the
  tokenizer's special tokens, and `expected.json`: for each conversation the text without and with the
  generation prompt, or {"error": message} of `raise_exception`. Families of text models are given texts in
  place of lists. The clock stands at 2026-11-28 12:34:56.

The templates are written here, in the form of the published ones.
"""

import datetime
import json
import shutil

import jinja2
import transformers.utils.chat_template_utils as peer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from shared.models import write_json
from shared.script import begin

PINNED = {"transformers": "5.23.0", "jinja2": "3.1.6", "tokenizers": "0.23.3"}

CHATML = """\
{% for message in messages %}
{% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """\
{{- bos_token }}
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
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("Conversation roles must alternate user and assistant, not " + message.role) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.get('tool_calls') is none %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

IDEFICS3 = """\
{{ '<|begin_of_text|>' }}{% for message in messages %}
{{ message['role'].upper()[0] + message['role'][1:] + ':' }}
{%- for item in message.content %}
{% if item.type == 'image' %}{{ '<image>' }}{% else %}{{ ' ' ~ item.text|trim }}{% endif %}
{% endfor %}
{{ '<end_of_utterance>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}{# Images come first. #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Then the text. #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

QWEN_VL = """\
{%- set image_count = namespace(value=0) -%}
{%- macro part(item, counted) -%}
    {%- if item.type == 'image' or 'image_url' in item -%}
        {%- if counted %}{{ 'Picture ' ~ (image_count.value + 1) ~ ': ' }}{% endif -%}
        <|vision_start|><|image_pad|><|vision_end|>
    {%- elif 'text' in item -%}
        {{ item['text'] }}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
    {%- if loop.first and message['role'] != 'system' -%}
        <|im_start|>system
You are a helpful assistant.<|im_end|>
{{ '' }}
    {%- endif -%}
    <|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}
{%- else -%}
    {%- for item in message['content'] -%}
        {{- part(item, counted=messages|length > 2) }}
        {%- if item['type'] == 'image' %}{% set image_count.value = image_count.value + 1 %}{% endif -%}
    {%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

FEATURES = """\
{#- A comment of
several lines -#}
{%- set found = namespace(last=-1, names=[]) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- if message.role == 'user' and not found.last >= 0 %}{% set found.last = index %}{% break %}{% endif %}
{%- endfor %}
{%- macro quoted(text, mark='"') %}{{ mark ~ text ~ mark }}{% endmacro %}
{%- for message in messages if message.content is not none %}
    {%- set content = message.content %}
    {%- if loop.previtem is defined and loop.previtem.role == message.role %}
        {{- '(again) ' }}
    {%- endif %}
    {{- loop.index ~ '/' ~ loop.length ~ ' ' ~ message.role.title() ~ ':' }}
    {%- if '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {{- ' [' + thought | upper + ']' }}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if content.startswith('What') or content.endswith('?') %}
        {{- ' ' + quoted(content.strip(), mark="'") }}
    {%- elif content is string and content | length > 60 %}
        {{- ' ' + content[:10] + '...' + content[-10:] }}
    {%- else %}
        {{- ' ' + quoted(content.replace('a', '4', 1)) }}
    {%- endif %}
    {% generation %}
    {{- ' ' + ({'role': message.role, 'n': [loop.index, 1.5, true, none], 'text': content} | tojson) }}
    {% endgeneration %}
    {{- ' ' ~ (content | tojson(ensure_ascii=true)) ~ loop.first ~ loop.last ~ none ~ [1, 'b'] -}}
{{ ' ' if loop.last else '\\n' }}
{%- endfor %}
{{- ' last user: ' ~ found.last }}
    {%- set pairs = dict(a=1, b='two') %}
  {% for key, value in pairs.items() %}
   {{ key }}={{ value }},{{ pairs.get('c', 'none') }}
  {% endfor %}
{{ missing }}{{ 'x' if missing }}{{ missing is defined }}{{ messages[0].missing | default('absent') }}
{%- for i in range(3) %}{{ '%s-%d|' | format('n', i) }}{% else %}nothing{% endfor %}
{{ messages | map(attribute='role') | unique | join(', ') }}
{{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 3 }} {{ 7 / 2 }}
{{ strftime_now('%Y-%m-%d %H:%M:%S, %A %B %j %y %I %p %%') }} {{ [3, 1, 2] | sort | tojson(indent=2) }}
{% if add_generation_prompt %}{{ eos_token }}{{ bos_token }}{{ pad_token }}go{% endif %}

"""


def text(value):
    return {"type": "text", "text": value}


def message(role, *parts):
    parts = [text(part) if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": parts}


IMAGE = {"type": "image"}

CONVERSATIONS = {
    "one": [message("user", "What is it?")],
    "system": [message("system", "Answer in one word."), message("user", " Is it a cat? \n")],
    "turns": [
        message("user", "Hello"),
        message("assistant", "<think>\nA greeting.\n</think>\n\nHi, what can I do?"),
        message("user", "Count: é, \"ü\" & <b>'日本'</b>"),
        message("assistant", "a a b\ttwo\nlines"),
        message(
            "user", "A long text that says the same, the same, the same, and then the same once again."
        ),
    ],
    "system-turns": [
        message("system", "Be brief."),
        message("user", "One"),
        message("assistant", "Two"),
        message("user", "Three"),
    ],
    "twice-user": [message("user", "One"), message("user", "Two")],
    "answered": [message("user", "One"), message("assistant", "Two")],
    "image": [message("user", IMAGE, "What is it?")],
    "images": [
        message("system", "Compare."),
        message("user", "First:", IMAGE, "Second:", IMAGE, " Which is larger?"),
        message("assistant", "The second."),
        message("user", IMAGE, "And this?"),
    ],
    "image-last": [
        message("user", "Describe ", IMAGE),
        message("assistant", "A dog. "),
        message("user", "Why?"),
    ],
}

# The template, whether it takes texts, and the file that has it.
FAMILIES = {
    "chatml": (CHATML, True, "tokenizer_config.json"),
    "llama3": (LLAMA3, True, "chat_template.jinja"),
    "mistral": (MISTRAL, True, "list"),
    "smolvlm": (SMOLVLM, False, "chat_template.json"),
    "idefics3": (IDEFICS3, False, "chat_template.jinja"),
    "llava": (LLAVA, False, "processor_config.json"),
    "qwen-vl": (QWEN_VL, False, "chat_template.jinja"),
    "features": (FEATURES, True, "chat_template.jinja"),
}
TOKENS = {
    "chatml": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "mistral": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "features": {"bos_token": "<s>", "eos_token": "</s>"},
}


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime(2026, 11, 28, 12, 34, 56)


def as_texts(conversation):
    """The conversation of a text model; None where it has an image."""
    if any(part["type"] == "image" for entry in conversation for part in entry["content"]):
        return None
    return [
        entry | {"content": "\n".join(part["text"] for part in entry["content"])} for entry in conversation
    ]


def rendered(tokenizer, conversation, add_generation_prompt):
    try:
        return tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}


def write_files(folder, template, file, tokenizer):
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if file != "chat_template.jinja":
        (folder / "chat_template.jinja").unlink()
    if file in ("chat_template.json", "processor_config.json"):
        write_json(folder / file, {"chat_template": template})
    if file == "tokenizer_config.json":
        write_json(folder / file, config | {"chat_template": template})
    if file == "list":
        named = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": template}]
        write_json(folder / "tokenizer_config.json", config | {"chat_template": named})


def main():
    out = begin(PINNED)
    peer.datetime = Clock
    write_json(out / "conversations.json", CONVERSATIONS)
    for name, (template, takes_texts, file) in FAMILIES.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        vocabulary = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, **TOKENS.get(name, {}))
        tokenizer.chat_template = template
        expected = {}
        for key, conversation in CONVERSATIONS.items():
            conversation = as_texts(conversation) if takes_texts else conversation
            if conversation is not None:
                expected[key] = [rendered(tokenizer, conversation, prompt) for prompt in (False, True)]
        write_files(folder, template, file, tokenizer)
        write_json(folder / "expected.json", expected)


if __name__ == "__main__":
    main()

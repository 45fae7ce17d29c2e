import json
from datetime import datetime
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from skydraft.errors import ModelLoadError, PromptRejected
from skydraft.text.chat_template import ChatTemplate, load_chat_template
from skydraft.text.checkpoint import Checkpoint

CHATML = """{%- for message in messages %}
    {%- if message.role not in ["system", "user", "assistant"] %}
        {{- raise_exception("unknown role " + message.role) }}
    {%- endif %}
    {{- "<|im_start|>" + message.role + "\\n" }}
    {%- generation %}{{- message.content }}{% endgeneration %}
    {{- "<|im_end|>\\n" }}
{%- endfor %}
    {% if add_generation_prompt %}
<|im_start|>assistant
    {% endif %}"""
MESSAGES = [{"role": "system", "content": "Be <brief> & kind."}, {"role": "user", "content": "Hello."}]


def folder_with(tmp_path: Path, **files: object) -> Checkpoint:
    for name, content in {"config": {}, **files}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return Checkpoint.open(tmp_path)


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_a_conversation_is_written_as_transformers_writes_it(add_generation_prompt: bool) -> None:
    texts = render_jinja_template(
        conversations=[MESSAGES], chat_template=CHATML, add_generation_prompt=add_generation_prompt
    )[0]  # of texts and masks, whatever its annotation says
    assert ChatTemplate(CHATML, {}).render(MESSAGES, add_generation_prompt) == texts[0]


def test_templates_may_name_special_tokens_json_and_the_date() -> None:
    source = "{{ bos_token }}{{ messages[0] | tojson }}{{ strftime_now('%Y') }}"
    template = ChatTemplate(source, {"bos_token": "<s>"}, datetime(2031, 5, 1))
    assert template.render([{"role": "user", "content": "<é>"}]) == '<s>{"role": "user", "content": "<é>"}2031'


def test_messages_that_a_template_refuses_are_rejected() -> None:
    with pytest.raises(PromptRejected, match="unknown role oracle"):
        ChatTemplate(CHATML, {}).render([{"role": "oracle", "content": ""}])


def test_a_template_runs_in_a_sandbox() -> None:
    with pytest.raises(PromptRejected, match="does not take"):
        ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}", {}).render(MESSAGES)


def test_a_wrong_template_names_its_line() -> None:
    with pytest.raises(ModelLoadError, match="line 2"):
        ChatTemplate("\n{% if %}", {})


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"chat_template": "one {{ eos_token }}", "eos_token": "E"}},
        {
            "tokenizer_config": {
                "chat_template": [
                    {"name": "tools", "template": "x"},
                    {"name": "default", "template": "one {{ eos_token }}"},
                ],
                "eos_token": {"content": "E"},
            }
        },
        {"chat_template": {"chat_template": "one {{ eos_token }}"}, "tokenizer_config": {"eos_token": "E"}},
    ],
)
def test_a_folder_keeps_its_template_in_one_of_several_files(tmp_path: Path, files: dict[str, object]) -> None:
    template = load_chat_template(folder_with(tmp_path, **files))
    assert template is not None
    assert template.render(MESSAGES) == "one E"


def test_a_template_file_of_its_own_goes_first(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("two")
    template = load_chat_template(folder_with(tmp_path, tokenizer_config={"chat_template": "one"}))
    assert template is not None
    assert template.render(MESSAGES) == "two"


def test_a_folder_may_have_no_template(tmp_path: Path) -> None:
    assert load_chat_template(folder_with(tmp_path)) is None

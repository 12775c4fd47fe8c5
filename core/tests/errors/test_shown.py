"""What a terminal and a log get to see."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import fastvideo_core
from fastvideo_core.errors import Problem, UserError
from fastvideo_core.errors.shown import is_secret, printable, without_secrets

SECRET = (
    "api-key", "api_key", "apikey", "apiKey", "API_KEY", "auth", "authorization", "Authorization", "secret", "secret_key",
    "private_key", "wandbApiKey", "WANDB_API_KEY", "token", "hf_token", "HF_TOKEN", "access_token", "accessToken", "api_tokens",
    "password", "db_password", "passwd", "credentials", "aws_access_key_id", "aws_secret_access_key", "aws-session-token",
    "client_secret", "secret_access_key", "bearer", "ssh_key", "passphrase", "cookie", "api_key_2", "WANDB_API_KEY2",
)  # fmt: skip
PLAIN = (
    "num_tokens", "tokenizer", "max_text_tokens", "shift_tokens", "tokens", "token_count", "key", "keys", "keyboard", "author",
    "authors", "monkey", "layers", "seed", "path", "secretary", "passes", "compass", "num_keys", "tracker_project_name",
)  # fmt: skip
TEXTS = {
    "https://me:hush@example.org/a": "https://***@example.org/a",
    "clone git+ssh://me:hush@host/x now": "clone git+ssh://***@host/x now",
    "s3://AKIAABCDEFGHIJKLMNOP:hush@bucket": "s3://***@bucket",
    "https://x.org/y?a=1&token=hush&b=2": "https://x.org/y?a=1&token=***&b=2",
    "https://me:hu@sh@example.org/a": "https://***@example.org/a",
    "https://x.org/y#access_token=hush": "https://x.org/y#access_token=***",
    "env WANDB_API_KEY=hush HF_TOKEN=hush run": "env WANDB_API_KEY=*** HF_TOKEN=*** run",
    "https://x.org/y?X-Amz-Signature=hush": "https://x.org/y?X-Amz-Signature=***",
    "https://x.org/y?api_key=hush#part": "https://x.org/y?api_key=***#part",
    "Authorization: Bearer hushhushhush": "Authorization: Bearer ***",
    "AKIAABCDEFGHIJKLMNOP": "***",
    "hf_" + "a" * 34: "***",
    "mail me@example.org about org/name, http://x.org/a@b and num_tokens=5": None,
    "a cat: 3 ? 4 & tokens = 5": None,
    "set WANDB_API_KEY, or MONKEY=1 and NUM_TOKENS=5": None,
}


@pytest.mark.parametrize("name", SECRET)
def test_what_a_secret_sounding_key_names_is_hidden(name):
    assert without_secrets({"a": [{name: "hush"}]}) == {"a": [{name: "***"}]}


@pytest.mark.parametrize("name", PLAIN)
def test_other_keys_are_shown(name):
    assert not is_secret(name)
    assert without_secrets({"a": [{name: "hush"}]}) == {"a": [{name: "hush"}]}


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_within_a_text_are_hidden(text):
    shown = TEXTS[text] or text
    assert printable(text) == shown
    assert without_secrets([text]) == [shown]
    assert str(UserError(Problem(f"there is no {text}"))) == f"there is no {shown}"


def test_what_is_absent_stays_absent():
    assert without_secrets({"token": None, "n": 3}) == {"token": None, "n": 3}


def test_what_a_terminal_would_act_on_is_shown_as_an_escape():
    shown = str(Problem("found \x1b[31m\r\x9b\u202e\ud800", where="a\x00b", fix="one\ntwo\tthree"))
    assert shown == "a\\x00b: found \\x1b[31m\\r\\x9b\\u202e\\ud800\n    fix: one\ntwo\tthree"
    assert printable("Zoë 家族 \U0001f468\u200d\U0001f469") == "Zoë 家族 \U0001f468\u200d\U0001f469"


def test_nothing_that_is_printed_or_logged_reaches_the_terminal_raw(tmp_path, capsys, monkeypatch):
    import logging

    from fastvideo_core.cli.console import Console
    from fastvideo_core.cli.main import main
    from fastvideo_core.launch.stdio import complain, say

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    evil = "\x1b[31m\x07 https://me:hush@x.org"
    say(evil)
    complain(evil)
    for console in (Console(), Console("json")):
        console.tell("event", evil, {evil[:6]: [evil]})
        logging.getLogger().handlers.clear()
        console.set_up_logging()
        logging.getLogger("fastvideo_core").warning("%s", evil)
    assert main(["check", str(tmp_path / f"{evil[:5]}.yaml")]) == 2
    assert main([evil]) == 2
    assert main(["check", "a", "b", evil]) == 2
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err
    assert "hush" not in said.out + said.err
    assert json.loads(said.out.splitlines()[-1])["event"] == "log"


def test_commands_print_in_one_place_and_json_in_the_others():
    """JSON has escapes of its own."""
    root, found = Path(fastvideo_core.__file__).parent, []
    for file in root.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        found += [file.relative_to(root).as_posix() for call in prints if "json.dumps" not in ast.unparse(call)]
    assert set(found) == {"launch/stdio.py"}

"""Which people are given a token: those who have none, and those whose token the Host does not know."""

from __future__ import annotations

import io
import pwd
import runpy
import sys
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

_PROGRAM = Path(__file__).resolve().parents[3] / "ansible/roles/hakuriver_host/files/people.py"


def _refused(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://head", code, "no", Message(), io.BytesIO())


@pytest.mark.parametrize(
    ("token", "answer", "told"),
    [
        ("hkr_user_known", None, "there"),
        ("hkr_user_old", _refused(401), ""),
        ("hkr_user_known", _refused(503), "there"),
        ("hkr_user_known", urllib.error.URLError("the Host is away"), "there"),
        ("", None, ""),
        (None, None, ""),
        ("hkr_user_ä", None, ""),
    ],
)
def test_a_token_is_missing_where_the_host_does_not_know_it(
    token: str | None,
    answer: Exception | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if token is not None:
        (tmp_path / ".hakuriver").mkdir()
        (tmp_path / ".hakuriver/token").write_text(f"{token}\n", encoding="utf-8")
    accounts = {"ada": tmp_path, "bob": tmp_path / "no-home"}

    def opened(_self: object, request: urllib.request.Request, **_: object) -> io.BytesIO:
        assert request.get_header("Authorization") == f"Bearer {token}"
        if answer is not None:
            raise answer
        return io.BytesIO()

    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_dir=str(accounts[name])))
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", opened)
    monkeypatch.setattr(
        sys, "argv", ["people.py", "http://head:8000", "/no/ca.pem", "ada", "bob", "nobody-here"]
    )
    runpy.run_path(str(_PROGRAM), run_name="__main__")
    assert capsys.readouterr().out == f"ada\t{tmp_path}\t{told}\n"

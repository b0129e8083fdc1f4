"""The file of tokens: who may read and write it, and what it may say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from service import WITHOUT_COVERAGE

from scheduler.web.tokens import BadTokens, Tokens, User, make_tokens, read_tokens

LINE = "ann operator 0123456789abcdef\n"


def test_the_file_of_tokens_is_made_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    make_tokens(path, "ann")
    text = path.read_text()
    assert os.stat(path).st_mode & 0o777 == 0o600
    make_tokens(path, "bob")
    assert path.read_text() == text
    (token,) = re.findall(r"^ann operator (\S{32})$", text, re.MULTILINE)
    assert read_tokens(path).user_of(token) == User("ann", "operator")


@pytest.mark.parametrize("name", ["DOMAIN\\ann", "a b", "", "ann\nbob operator " + "x" * 16, "é", "-x", "<b>"])
def test_what_the_system_calls_somebody_gets_no_line_of_its_own_into_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tokens"
    make_tokens(path, name)
    (token,) = re.findall(r"^operator operator (\S{32})$", path.read_text(), re.MULTILINE)
    assert len(path.read_text().splitlines()) == 2
    assert read_tokens(path).user_of(token) == User("operator", "operator")


def test_no_file_is_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "tokens").symlink_to(tmp_path / "elsewhere")
    make_tokens(tmp_path / "tokens", "ann")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(BadTokens, match="cannot be read: No such file"):
        read_tokens(tmp_path / "tokens")


def test_a_place_where_no_file_can_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadTokens, match="cannot be made: Not a directory"):
        make_tokens(tmp_path / "file" / "tokens", "ann")


def test_a_disk_that_is_full_leaves_no_file_behind_and_the_next_start_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from scheduler.web.tokens import BadTokens, make_tokens\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: make_tokens(Path(sys.argv[1]), 'ann')\n"
        "except BadTokens as error: print(error)"
    )
    # Nothing, and as much as would be a shorter token.
    for most in (0, 110):
        command = [sys.executable, "-c", code, str(path), str(most)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | WITHOUT_COVERAGE)
        assert done.stdout == f"{path}: cannot be made: File too large\n"
        assert os.listdir(tmp_path) == []
    make_tokens(path, "ann")
    assert read_tokens(path).user_of(path.read_text().split()[-1]) == User("ann", "operator")
    assert os.listdir(tmp_path) == ["tokens"]


def test_of_dashboards_that_start_at_once_each_reads_the_whole_file_of_the_first(tmp_path: Path) -> None:
    for number in range(50):
        path = tmp_path / f"tokens{number}"
        start = threading.Barrier(4)

        def begin(path: Path = path, start: threading.Barrier = start) -> str:
            start.wait()
            make_tokens(path, "ann")
            read_tokens(path)
            return path.read_text()

        with ThreadPoolExecutor(4) as pool:
            assert len({each.result() for each in [pool.submit(begin) for _ in range(4)]}) == 1
    assert len(os.listdir(tmp_path)) == 50


@pytest.mark.parametrize(
    ("text", "mode", "wrong"),
    [
        (LINE, 0o644, "others may read it; `chmod 600` it"),
        (LINE, 0o620, "others may read it; `chmod 600` it"),
        ("ann boss 0123456789abcdef", 0o600, "1: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
        ("# nobody\nann operator", 0o600, "2: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
        ("ann operator short", 0o600, "1: the token is shorter than 16 characters"),
        (f"{LINE}bob viewer 0123456789abcdef", 0o600, "2: `ann` has this token already"),
        ("# nobody", 0o600, "has no token; write `NAME operator TOKEN`"),
        ("<a> operator 0123456789abcdef", 0o600, "1: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
        ("a\x1b[2J operator 0123456789abcdef", 0o600, "1: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_told_in_one_line_that_names_no_token(
    tmp_path: Path, text: str, mode: int, wrong: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(BadTokens) as caught:
        read_tokens(path)
    assert str(caught.value).endswith(wrong)
    assert "0123456789abcdef" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokens", 0o600)
    with pytest.raises(BadTokens, match="is no file"):
        read_tokens(tmp_path / "tokens")
    with pytest.raises(BadTokens, match=r"Is a directory|is no file"):
        read_tokens(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_somebody_else_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(LINE)
    path.chmod(0o600)
    os.chown(path, 4711, -1)
    with pytest.raises(BadTokens, match="belongs to user 4711"):
        read_tokens(path)


def test_tokens_are_compared_by_digests_of_one_length_and_not_kept_themselves() -> None:
    tokens = Tokens({f"{number:02}" + "x" * 40: User(f"u{number}", "viewer") for number in range(50)})
    assert tokens.user_of("00" + "x" * 40) == User("u0", "viewer")
    assert tokens.user_of("00" + "x" * 39 + "y") is None
    assert tokens.user_of("00" + "x" * 4000) is None
    assert "x" * 40 not in repr(vars(tokens))

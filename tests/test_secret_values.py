"""Where the values of secrets come from, and which names of secrets a DAG file may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.dag import load_dag
from workers.errors import InvalidFile
from workers.secret_values import MAX_BYTES, RunSecrets, UnusableSecret, read_secret

TOKEN = "tok-3f9c17d2e8b04a65"


def test_a_value_comes_from_the_credentials_then_the_named_file_then_the_variable(tmp_path: Path) -> None:
    (tmp_path / "TOKEN").write_text("from-credentials\n")
    (tmp_path / "file").write_text("from-file\n\n")
    environ = {"TOKEN": "from-variable\n", "TOKEN_FILE": f"{tmp_path}/file", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret("TOKEN", environ) == b"from-credentials"
    (tmp_path / "TOKEN").unlink()
    assert read_secret("TOKEN", environ) == b"from-file\n"
    assert read_secret("TOKEN", {**environ, "TOKEN_FILE": ""}) == b"from-variable\n"
    with pytest.raises(
        UnusableSecret, match=r"secret `TOKEN` is not there; looked for \$CREDENTIALS_DIRECTORY/TOKEN, "
    ):
        read_secret("TOKEN", {"TOKEN": "", "TOKEN_FILE": ""})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\n", "is empty"),
        (b"abc\n", "fewer than 4 bytes"),
        (b"secret-\0-value", "NUL"),
        (b"x" * (MAX_BYTES + 1), "more than 65536 bytes"),
    ],
)
def test_a_value_that_no_task_can_be_given_is_refused_without_being_shown(
    tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UnusableSecret, match=why) as caught:
        read_secret("TOKEN", {"TOKEN_FILE": f"{tmp_path}/file", "TOKEN": "does not count"})
    assert "secret-" not in str(caught.value)
    assert "file that TOKEN_FILE names" in str(caught.value)


def test_the_largest_value_and_bytes_that_are_no_utf8_arrive(tmp_path: Path) -> None:
    for content in (b"x" * MAX_BYTES, b"\xff\xfe\x80 bytes"):
        (tmp_path / "file").write_bytes(content + b"\n")
        secrets = RunSecrets(["TOKEN"], {"TOKEN_FILE": f"{tmp_path}/file"})
        assert os.fsencode(secrets.env(["TOKEN"])["TOKEN"]) == content


def test_what_is_no_regular_file_is_refused_without_waiting_and_without_its_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    wrong = {
        "fifo": "not a regular file",
        ".": "not a regular file",
        "none": "does not exist",
        "loop": "cannot be read",
    }
    for name, why in {**wrong, "x" * 300: "cannot be read"}.items():
        with pytest.raises(UnusableSecret, match=why) as caught:
            read_secret("TOKEN", {"TOKEN_FILE": f"{tmp_path}/{name}", "TOKEN": "does not count"})
        assert str(tmp_path) not in str(caught.value)
    (tmp_path / "TOKEN").mkdir()
    with pytest.raises(UnusableSecret, match="the credential is not a regular file"):
        read_secret("TOKEN", {"CREDENTIALS_DIRECTORY": str(tmp_path), "TOKEN": "does not count"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(TOKEN)
    (tmp_path / "file").chmod(0)
    with pytest.raises(UnusableSecret, match="cannot be read: Permission denied"):
        read_secret("TOKEN", {"TOKEN_FILE": f"{tmp_path}/file"})


# --- what a file may say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("secrets: [A-B]\ntasks: [{id: a, run: x, secrets: A-B}]", "2:11: dag `d`: `secrets`: 'A-B' is not a name of"),
        ("secrets: [PATH]\ntasks: [{id: a, run: x, secrets: PATH}]", "2:11: dag `d`: `secrets`: `PATH` is given to"),
        ("secrets: LC_X\ntasks: [{id: a, run: x, secrets: LC_X}]", "2:10: dag `d`: `secrets`: `LC_X` is given to"),
        ("secrets: [RUN_ID]\ntasks: [{id: a, run: x, secrets: RUN_ID}]", "2:11: dag `d`: `secrets`: `RUN_ID` has a"),
        ("secrets: DAG_ID\ntasks: [{id: a, run: x, secrets: DAG_ID}]", "2:10: dag `d`: `secrets`: `DAG_ID` has a"),
        ("secrets: [AA, AA]\ntasks: [{id: a, run: x, secrets: AA}]", "2:15: dag `d`: `secrets` names `AA` twice"),
        ("secrets: [AA, BB]\ntasks: [{id: a, run: x, secrets: AA}]", "2:15: dag `d`: no task and no hook names the"),
        ("secrets: TOKEN\ntasks: [{id: a, run: x, secrets: [TOKEN, TOKNE]}]",
         "3:42: task `a`: dag `d` declares no secret `TOKNE`; did you mean `TOKEN`?"),
        ("tasks: [{id: a, run: x, secrets: [TOKEN]}]",
         "2:35: task `a`: dag `d` declares no secret `TOKEN`; it declares none, add `secrets` to the DAG"),
        ("secrets: AA\nenv: {AA: x}\ntasks: [{id: a, run: x, secrets: AA}]",
         "3:7: dag `d`: `AA` is a secret and may not be set in `env`"),
        ("secrets: AA\ntasks: [{id: a, run: x, secrets: AA}, {id: b, run: x, env: {AA: x}}]",
         "3:61: task `b`: `AA` is a secret and may not be set in `env`"),
        ("secrets: AA\ntasks: [{id: a, call: m:f, isolate: false, secrets: AA}]",
         "3:44: task `a`: `secrets` does not go with `isolate: false`: a callable with"),
        ("secrets: AA\ntasks: [{id: a, run: 'echo ${secrets.AA}', secrets: AA}]",
         "3:22: task `a`: `run`: `${secrets.AA}` is not a reference here: name `AA` in the task's `secrets`"),
        ("secrets: AA\ntasks: [{id: a, run: [x, '${secrets.AA}'], secrets: AA}]",
         "3:26: task `a`: `run`: `${secrets.AA}` is not a reference here: name `AA` in the task's `secrets`"),
        ("secrets: {A: b}\ntasks: [{id: a, run: x}]", "2:10: dag `d`: `secrets`: expected a list of texts"),
    ],
)  # fmt: skip
def test_a_wrong_secret_is_told_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "d.yaml").write_text(f"id: d\n{text}\n")
    with pytest.raises(InvalidFile) as caught:
        load_dag(Path("d.yaml"), tmp_path)
    assert str(caught.value).startswith(f"d.yaml:{fault}")
    assert len(caught.value.faults) == 1


def test_hooks_may_name_secrets_and_a_faulty_task_hides_no_use(tmp_path: Path) -> None:
    text = "id: d\nsecrets: [AA, BB]\non_exit: {id: h, run: x, secrets: BB}\ntasks:\n- {id: a, run: x, secrets: AA}\n"
    text = text.replace("on_exit: {id: h, run: x, secrets: BB}", "on_exit: [{run: x, secrets: BB}]")
    (tmp_path / "d.yaml").write_text(text)
    assert load_dag(Path("d.yaml"), tmp_path).on_exit[0].secrets == ("BB",)
    (tmp_path / "d.yaml").write_text(text.replace("run: x, secrets: AA", "rnu: x, secrets: AA"))
    with pytest.raises(InvalidFile, match="unknown key `rnu`") as caught:
        load_dag(Path("d.yaml"), tmp_path)
    assert not any("secret" in fault.message for fault in caught.value.faults)

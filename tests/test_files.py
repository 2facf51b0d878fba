"""Folders and files: whole or not at all, what is the user's kept, the same bytes everywhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from n2uq_hw import files
from n2uq_hw.errors import N2uqError
from n2uq_hw.files import changed_files, read_text, whole_directory, write_file


def fill(out: Path, text: str = "new", name: str = "rtl/a.v") -> None:
    with whole_directory(out, version="1") as part:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != files.MANIFEST}


def test_only_our_folders_and_empty_ones_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for out, rule in (("notes", "must be new, empty or an earlier build"),
                      ("file", "must be new, empty or an earlier build"),
                      ("file/below", "file: must be a folder, to hold .*below, and is a file")):
        with pytest.raises(N2uqError, match=rule):
            fill(tmp_path / out)
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    assert tree(tmp_path) == {"notes/precious.txt": "x", "file": "x", "empty/rtl/a.v": "new"}


@pytest.mark.parametrize("atomic", [True, False])
def test_what_is_the_users_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
                                 ) -> None:
    if not atomic:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    out = tmp_path / "b"
    fill(out, "old")
    fill(out, "older files go", "rtl/gone.v")
    assert tree(out) == {"rtl/gone.v": "older files go"}
    for name in ("vivado/deep/notes.txt", "rtl/mine.v"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    (out / "link").symlink_to("vivado/deep")
    (out / "none").mkdir()
    (out / "simulation").mkdir()
    (out / "simulation" / "Vtop").write_text("of the Verilog before")
    (out / "rtl" / "gone.v").write_text("edited")
    for k in range(2):
        fill(out, "new")
        assert tree(out) == {"rtl/a.v": "new", "rtl/mine.v": "mine",
                             "vivado/deep/notes.txt": "mine", "rtl/gone.v": "edited"}, k
    assert (out / "link").is_symlink() and (out / "none").is_dir()
    (out / "rtl" / "a.v").write_text("edited, too")
    fill(out, "newer")
    (out / "rtl" / "a.v").write_text("and again")
    fill(out, "newest")
    assert tree(out)["rtl/a.v.edited"] == "edited, too"
    assert tree(out)["rtl/a.v.edited1"] == "and again" and tree(out)["rtl/a.v"] == "newest"
    with pytest.raises(N2uqError, match=r"b/rtl/mine.v: must not be replaced"):
        fill(out, "ours", "rtl/mine.v")
    assert tree(out)["rtl/mine.v"] == "mine" and tree(out)["rtl/a.v"] == "newest"
    assert changed_files(out) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from n2uq_hw import files
if sys.argv[1] == "filled":
    with files.whole_directory(Path("b")) as part:
        (part / "a").write_text("new")
        os.kill(os.getpid(), signal.SIGKILL)
files.ctypes.CDLL = lambda *_, **__: object()  # no exchange: two renames
rename, count = Path.rename, [int(sys.argv[1])]
def killed(self, target):
    if count[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    count[0] -= 1
    return rename(self, target)
Path.rename = killed
with files.whole_directory(Path("b")) as part:
    (part / "a").write_text("new")
"""


@pytest.mark.parametrize("when", ["filled", "0", "1", "2"])
def test_killed_at_any_time_the_next_start_finds_a_whole_folder(tmp_path: Path, when: str) -> None:
    fill(tmp_path / "b", "old", "a")
    (tmp_path / "b" / "mine").write_text("mine")
    run = subprocess.run([sys.executable, "-c", KILLED, when], cwd=tmp_path, check=False)
    assert run.returncode == -signal.SIGKILL
    if (tmp_path / "b").exists():  # whole, though no next start came
        assert tree(tmp_path / "b") in ({"a": "old", "mine": "mine"}, {"a": "new", "mine": "mine"})
    with pytest.raises(KeyError), whole_directory(tmp_path / "b"):
        assert tree(tmp_path / "b") in ({"a": "old", "mine": "mine"}, {"a": "new", "mine": "mine"})
        raise KeyError  # this one ends, and what was left behind is gone
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_many_at_once_end_as_one_whole_folder(tmp_path: Path) -> None:
    code = ("import sys; from pathlib import Path; from n2uq_hw.files import whole_directory\n"
            "for k in range(20):\n"
            "    with whole_directory(Path('deep/b')) as part:\n"
            "        for n in range(5): (part / f'{n}').write_text(sys.argv[1])\n")
    runs = [subprocess.Popen([sys.executable, "-c", code, str(k)], cwd=tmp_path,
                             stderr=subprocess.PIPE) for k in range(4)]
    for run in runs:
        assert run.wait() == 0, run.stderr.read()
    assert len(set(tree(tmp_path / "deep" / "b").values())) == 1
    assert len(tree(tmp_path / "deep" / "b")) == 5 and changed_files(tmp_path / "deep" / "b") == ()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["b"]


def nested(out: Path) -> None:
    with whole_directory(out) as part, whole_directory(part / "inner") as inner:
        write_file(inner / "a", "a")


def test_a_folder_is_made_whole_within_another(tmp_path: Path) -> None:
    """In a process of its own, for a lock that is asked for twice would never be had."""
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n"
                           "from pathlib import Path; import test_files\n"
                           f"test_files.nested(Path({str(tmp_path / 'o')!r}))"], timeout=60)
    assert done.returncode == 0 and not list(tmp_path.glob(".*"))
    assert changed_files(tmp_path / "o") == changed_files(tmp_path / "o" / "inner") == ()
    assert read_text(tmp_path / "o" / "inner" / "a") == "a"


def test_links_lead_to_their_folder_and_file(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "to").symlink_to("disk")
    (tmp_path / "new").symlink_to("disk/later")
    for _ in range(2):
        fill(tmp_path / "to")
        fill(tmp_path / "new")
        assert (tmp_path / "to").is_symlink() and tree(tmp_path / "disk")["rtl/a.v"] == "new"
    (tmp_path / "file").symlink_to("disk/there")
    write_file(tmp_path / "file", "text")
    assert (tmp_path / "file").is_symlink() and (tmp_path / "disk/there").read_text() == "text"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_is_honoured(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        fill(tmp_path / "b")
        write_file(tmp_path / "f", "x")
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777
             for name in ("b", "b/rtl", "b/rtl/a.v", "b/manifest.json", "f")}
    assert modes == {"b": 0o777 & ~mask, "b/rtl": 0o777 & ~mask, "b/rtl/a.v": 0o666 & ~mask,
                     "b/manifest.json": 0o666 & ~mask, "f": 0o666 & ~mask}


def test_an_interrupt_leaves_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path / "b", "old")
    with pytest.raises(KeyboardInterrupt), whole_directory(tmp_path / "b") as part:
        (part / "half").write_text("x")
        raise KeyboardInterrupt
    assert tree(tmp_path) == {"b/rtl/a.v": "old"}
    write_file(tmp_path / "x.part", "the user's own")
    write_file(tmp_path / "x", "1")
    assert tree(tmp_path)["x.part"] == "the user's own"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes("schön".encode("latin-1"))
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    for name, rule in (("none", "none: no such file"),
                       ("folder", "must be a file, and is a folder"),
                       ("dangling", "a link to nothing, which is not there"),
                       ("pipe", "must be a file, and is a device or pipe"),
                       ("latin", "must be UTF-8 text, and is not at byte 3"),
                       ("x" * 300, "cannot be read: File name too long"),
                       ("latin/below", "cannot be read: Not a directory")):
        with pytest.raises(N2uqError, match=rule):
            read_text(tmp_path / name)
    user = () if os.geteuid() else ("setpriv", "--reuid=65534", "--clear-groups")
    if user and not shutil.which(user[0]):
        pytest.skip("no setpriv, to read as a user whom permissions bind")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    code = ("import importlib.util, pathlib, sys\n"
            "from n2uq_hw.files import readable\nreadable(pathlib.Path(sys.argv[1]))")
    run = subprocess.run([*user, sys.executable, "-c", code, tmp_path / "secret"], check=False,
                         capture_output=True, text=True)
    assert "secret: cannot be read: Permission denied" in run.stderr


def test_a_file_system_without_exchange_is_served(tmp_path: Path, monkeypatch) -> None:
    class Libc:
        @staticmethod
        def renameat2(*_: object) -> int:
            files.ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: Libc)
    for text in ("one", "two"):
        fill(tmp_path / "b", text)
        assert tree(tmp_path) == {"b/rtl/a.v": text}


@pytest.mark.slow
def test_builds_are_the_same_bytes_in_every_locale(net, tmp_path: Path) -> None:
    net.save(tmp_path / "small.safetensors")
    written = []
    for name, env in (("utf8", {"LC_ALL": "C.UTF-8"}), ("ascii", {
            "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}), ("latin", {
            "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"})):
        run = subprocess.run([sys.executable, "-m", "n2uq_hw", "build", "small.safetensors",
                              "--out", name], cwd=tmp_path, env=os.environ | env,
                             capture_output=True, check=False)
        assert run.returncode == 0, run.stderr
        assert (b"\xc3\x97" in run.stdout, b"\xd7" in run.stdout.replace(b"\xc3\x97", b"")) == {
            "utf8": (True, False), "ascii": (False, False), "latin": (False, True)}[name]
        assert b"\\x" not in run.stdout
        written.append({path.relative_to(tmp_path / name): path.read_bytes()
                        for path in sorted((tmp_path / name).rglob("*")) if path.is_file()})
    assert written[0] == written[1] == written[2]


def test_replacing_is_not_slow_to_give_way(tmp_path: Path) -> None:
    """SIGINT while the folder of another build is replaced: old or new, and the user's files."""
    fill(tmp_path / "b", "old")
    for k in range(3000):
        (tmp_path / "b" / f"wave{k}").touch()
    code = ("import signal; from pathlib import Path; from n2uq_hw.files import whole_directory\n"
            "print('go', flush=True)\n"
            "with whole_directory(Path('b')) as part: (part / 'new').write_text('new')\n")
    for wait in (0.0, 0.02, 0.05, 0.1):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGINT)
        child.wait()
        assert json.loads((tmp_path / "b" / "manifest.json").read_text())["sha256"]
        assert sum(path.name.startswith("wave") for path in (tmp_path / "b").iterdir()) == 3000
    assert changed_files(tmp_path / "b") == ()

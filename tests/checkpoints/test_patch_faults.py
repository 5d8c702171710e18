"""A full disk, a failing call, Ctrl-C or kill -9 at any moment: old files whole, or new ones."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bnaudit.checkpoints.patch import patch_checkpoint
from bnaudit.checkpoints.restore import restore_checkpoint
from bnaudit.errors import InputError

OLD, NEW = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
SIDECAR = "b.pt.bnaudit.json"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.pt"
    torch.save({"running_mean": torch.randn(2), "w": torch.randn(50)}, path)
    return path


@pytest.fixture
def sharing(tmp_path: Path) -> Path:
    """A file that has to be saved anew, and is by Python's own writing."""
    path, flat = tmp_path / "a.pt", torch.randn(5)
    content = {"running_mean": flat[:2], "w": flat[1:]}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def patch(source: Path, value: Tensor, *, overwrite: bool = True) -> None:
    patch_checkpoint(
        source,
        source.with_name("b.pt"),
        {"running_mean": value},
        key="",
        provenance={},
        overwrite=overwrite,
    )


def restore(source: Path) -> None:
    restore_checkpoint(source.with_name("b.pt"), source.with_name("c.pt"), overwrite=True)


def files(source: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in source.parent.iterdir()}


class Fault:
    """Does something at the n-th call of the system that writes, flushes, names or makes a file."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        self.at, self.action, self.calls = at, action, 0

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.at + 1:
            self.action()

    @property
    def happened(self) -> bool:
        return self.calls > self.at


class Written:
    """An open file whose writes count; one that fails has written half of its data."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self._file, self._fault = file, fault

    def write(self, data: Any) -> int:
        if self._fault.calls == self._fault.at:
            self._file.write(bytes(data)[: len(bytes(data)) // 2])
            self._file.flush()
        self._fault.count()
        return int(self._file.write(data))

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def system_calls(fault: Fault) -> Iterator[None]:
    """Inside, what bnaudit does to files goes through `fault`, before and after it is done."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("open", "fsync", "replace", "link"):
            patched.setattr(os, name, _counted(getattr(os, name), fault))
        opened = io.open

        def counted_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            handle = opened(file, mode, *args, **options)
            return Written(handle, fault) if set(mode) & set("wax+") else handle

        patched.setattr(io, "open", counted_open)
        patched.setattr("builtins.open", counted_open)
        yield


def _counted(function: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        fault.count()
        result = function(*args, **options)
        if function.__name__ != "open":  # nobody would close what was opened
            fault.count()
        return result

    return counted


def fail(error: BaseException) -> Callable[[], object]:
    def action() -> object:
        raise error

    return action


FAILURES = {
    "full disk": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "no permission": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "device": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "interrupt": KeyboardInterrupt,
}


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        pytest.param(
            failure,
            kind,
            # How a file is written differs with its kind, and not with the kind of the failure.
            marks=[pytest.mark.slow] * (kind == "sharing" and failure != "interrupt"),
        )
        for failure in FAILURES
        for kind in ("source", "sharing")
    ],
)
@pytest.mark.parametrize("before", ["nothing", "a pair", "no sidecar"])
def test_a_failure_at_any_call_leaves_the_old_files_or_the_new_ones(
    request: pytest.FixtureRequest, failure: str, before: str, kind: str
) -> None:
    source: Path = request.getfixturevalue(kind)
    if before != "nothing":
        patch(source, OLD)
    if before == "no sidecar":
        source.with_name(SIDECAR).unlink()
    old = files(source)
    seen = set()
    at = 0
    while True:
        for name, content in old.items():
            source.with_name(name).write_bytes(content)
        fault = Fault(at, fail(FAILURES[failure]()))
        message = ""
        with system_calls(fault):
            try:
                patch(source, NEW)
            except InputError as error:
                message = str(error)
            except KeyboardInterrupt:
                message = "interrupted"
        if not fault.happened:
            assert at > 15, "the faults did not reach the system calls"
            break
        after = files(source)
        if after == old:
            seen.add("old")
            assert message == "interrupted" or "no file was changed" in message
        else:
            seen.add("new")
            assert after.keys() == {"a.pt", "b.pt", SIDECAR}, f"call {at}"
            assert after["a.pt"] == old["a.pt"]
            assert torch.equal(torch.load(source.with_name("b.pt"))["running_mean"], NEW)
            restore(source)  # which compares the SHA-256 in the sidecar
            assert restored_is_of(source)
            source.with_name("c.pt").unlink()
            assert "no file was changed" not in message
        for name in after.keys() - old.keys():
            source.with_name(name).unlink()
        at += 1
    assert seen == {"old", "new"}


def restored_is_of(source: Path) -> bool:
    """Whether the restored file has the source's values; the same bytes where it was patched."""
    one, other = torch.load(source), torch.load(source.with_name("c.pt"))
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_restore_leaves_everything_as_it_was(source: Path, failure: str) -> None:
    patch(source, NEW)
    source.with_name("c.pt").write_bytes(b"old")
    old = files(source)
    at = 0
    while True:
        fault = Fault(at, fail(FAILURES[failure]()))
        with system_calls(fault), suppress(InputError, KeyboardInterrupt):
            restore(source)
        after = files(source)
        assert after.keys() == old.keys()
        assert after["c.pt"] in (b"old", after["a.pt"])
        assert {**after, "c.pt": b"old"} == old
        source.with_name("c.pt").write_bytes(b"old")
        if not fault.happened:
            break
        at += 1
    assert at > 8


def interrupted_at(source: Path, line: int) -> bool:
    """Patch, with Ctrl-C at the n-th line that runs of what writes; False where it ends sooner."""
    count = 0
    ours = ("publish.py", "atomic.py", "patch.py", "copying.py", "restore.py", "writing.py")

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        file = frame.f_code.co_filename
        if "bnaudit" not in file or not file.endswith(ours):
            return None
        if event == "line":
            count += 1
            if count == line + 1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        patch(source, NEW)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count > line


def test_an_interrupt_at_any_line_leaves_a_file_that_can_be_restored(source: Path) -> None:
    """Even in the middle of cleaning up, where it may leave a temporary file."""
    patch(source, OLD)
    old = files(source)
    line = 0
    results = set()
    while interrupted_at(source, line):
        after = files(source)
        assert after["a.pt"] == old["a.pt"]
        results.add(after["b.pt"])
        restore(source)
        assert source.with_name("c.pt").read_bytes() == old["a.pt"]
        for name in after.keys() - old.keys():
            assert name.startswith(".")
            assert name.endswith(".tmp")
        for name in files(source).keys() - old.keys():
            source.with_name(name).unlink()
        for name in ("b.pt", SIDECAR):
            source.with_name(name).write_bytes(old[name])
        line += 1
    assert line > 100
    assert len(results) == 2


def killed(work: Callable[[], object], seconds: float = 0.0, ready: int | None = None) -> None:
    """Run `work` in another process, and kill it after a while, or once it has said something."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if ready is not None:
        os.read(ready, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def assert_whole(source: Path, original: bytes) -> None:
    """No half-written file under a final name, and what can be restored is right."""
    assert source.read_bytes() == original
    target = source.with_name("b.pt")
    for path in source.parent.iterdir():
        ours = path.name in ("a.pt", "b.pt", SIDECAR)
        assert ours or (path.name.startswith(".b.pt") and path.name.endswith(".tmp"))
    if target.exists():
        value = torch.load(target)["running_mean"]
        assert torch.equal(value, OLD) or torch.equal(value, NEW)
        restore(source)
        assert source.with_name("c.pt").read_bytes() == original
        source.with_name("c.pt").unlink()


@needs_fork
@pytest.mark.parametrize("before", ["nothing", "a pair"])
def test_a_process_killed_at_any_call_leaves_whole_files(source: Path, before: str) -> None:
    original = source.read_bytes()
    at = 0
    while True:
        for path in set(source.parent.iterdir()) - {source}:
            path.unlink()
        if before == "a pair":
            patch(source, OLD)
        read, write = os.pipe()

        def stall(end: int = write) -> None:
            os.write(end, b"stalled")
            time.sleep(60)

        def work(end: int = write, call: int = at, action: Callable[[], None] = stall) -> None:
            with system_calls(Fault(call, action)):
                patch(source, NEW)
            os.write(end, b"ended")

        killed(work, ready=read)
        os.close(write)
        rest = os.read(read, 100)
        os.close(read)
        assert_whole(source, original)
        if rest.startswith(b"nded"):
            break
        at += 1
    assert at > 15


@needs_fork
def test_a_process_killed_at_random_moments_leaves_whole_files(source: Path) -> None:
    original = source.read_bytes()
    patch(source, OLD)

    def work() -> None:
        while True:
            patch(source, NEW)
            patch(source, OLD)

    for i in range(12):
        killed(work, seconds=0.02 + 0.0037 * i)
        assert_whole(source, original)


@needs_fork
@pytest.mark.parametrize("format_", ["zip", "legacy"])
@pytest.mark.parametrize("limit", [100, 1000, 1400])
def test_a_limit_that_the_system_sets_is_told_in_one_line(
    tmp_path: Path, format_: str, limit: int
) -> None:
    """torch's own writer included: what has to be saved anew reaches the limit in C++."""
    resource = pytest.importorskip("resource")
    flat, path = torch.randn(502), tmp_path / "a.pt"
    content = {"running_mean": flat[:2], "w": flat[1:]}
    torch.save(content, path, _use_new_zipfile_serialization=format_ == "zip")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            patch(path, NEW)
        except InputError as error:
            said = str(error)
        except BaseException as error:
            said = f"raised {error!r}"
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    said = os.read(read, 10_000).decode()
    os.close(read)
    assert "b.pt: cannot be written" in said
    assert len(said.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder_stays_as_it_was(source: Path) -> None:
    source.parent.chmod(0o555)
    try:
        with pytest.raises(InputError, match="not writable"):
            patch(source, NEW)
    finally:
        source.parent.chmod(0o755)
    assert [p.name for p in source.parent.iterdir()] == ["a.pt"]


def test_damage_on_the_way_to_the_disk_is_noticed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(source, OLD)
    old = files(source)
    opened = io.open

    class Damaging(Written):
        def write(self, data: Any) -> int:
            damaged = bytearray(data)
            damaged[len(damaged) // 2] ^= 1
            return int(self._file.write(damaged))

    def damaging_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        handle = opened(file, mode, *args, **options)
        return Damaging(handle, Fault(0, lambda: None)) if mode == "wb" else handle

    monkeypatch.setattr(io, "open", damaging_open)
    with pytest.raises(InputError, match=r"read back from .* is not what was written"):
        patch(source, NEW)
    monkeypatch.undo()
    assert files(source) == old


def test_new_files_have_the_mode_that_the_umask_gives(source: Path) -> None:
    before = os.umask(0o027)
    try:
        patch(source, NEW)
        restore(source)
    finally:
        os.umask(before)
    for name in ("b.pt", SIDECAR, "c.pt"):
        assert source.with_name(name).stat().st_mode & 0o777 == 0o640

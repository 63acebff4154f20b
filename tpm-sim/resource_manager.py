"""What the kernel's /dev/tpmrm0 is to a TPM: several clients share it, and none sees another's objects.

swtpm serves one connection at a time and has three slots for objects. This process stands before it. Each client has
object handles of its own; when another client's turn comes, the objects of the one before are saved and flushed, and
they are loaded again when they are next named. What a client leaves behind is flushed when it goes, however it goes.
As with the kernel, one client alone still has no more than three.

It also makes the TPM as slow as a real one: a file ``delay`` holds the milliseconds that each command takes longer.
It is started in the TPM's directory, and serves one TCP port: a connection is a client. What a resource manager does:
TPM 2.0 Library, part 1 (architecture), 30; the commands: part 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from pathlib import Path

_HEADER = struct.Struct(">HII")
"""tag, size, command or response code."""

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_CONTEXT_LOAD, _CONTEXT_SAVE, _FLUSH_CONTEXT, _GET_CAPABILITY = 0x161, 0x162, 0x165, 0x17A
_CAP_COMMANDS, _CAP_HANDLES = 2, 1
_TRANSIENT = 0x80
"""The first octet of an object's handle."""
_HANDLE_UNKNOWN = struct.pack(">HII", _NO_SESSIONS, 10, 0x18B)
"""TPM_RC_HANDLE for handle 1."""


class TpmGone(Exception):
    """swtpm does not run."""


class Tpm:
    """The one connection to swtpm, made when it is needed."""

    def __init__(self) -> None:
        self._delay = Path("delay")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._handles: dict[int, tuple[int, bool]] = {}

    async def run(self, command: bytes, *, slow: bool = False) -> bytes:
        """One command and its response. Raises TpmGone."""
        if slow and self._delay.exists():
            await asyncio.sleep(float(self._delay.read_text()) / 1000)
        try:
            if self._streams is None:
                self._streams = await asyncio.open_unix_connection("tpm.sock")
            reader, writer = self._streams
            writer.write(command)
            await writer.drain()
            head = await reader.readexactly(_HEADER.size)
            return head + await reader.readexactly(_HEADER.unpack(head)[1] - _HEADER.size)
        except (OSError, asyncio.IncompleteReadError) as error:
            if self._streams is not None:
                self._streams[1].close()
                self._streams = None
            raise TpmGone from error

    async def handles_of(self, code: int) -> tuple[int, bool]:
        """How many handles a command names, and whether it answers with a new one (TPMA_CC, part 2, 8.9)."""
        if not self._handles:
            answer = await self.run(_command(_GET_CAPABILITY, struct.pack(">III", _CAP_COMMANDS, 0, 500)))
            count = struct.unpack_from(">I", answer, 15)[0]
            for attributes in struct.unpack_from(f">{count}I", answer, 19):
                self._handles[attributes & 0xFFFF] = (attributes >> 25 & 7, bool(attributes >> 28 & 1))
        return self._handles.get(code, (0, False))


class Client:
    """One client's objects: its handle → the TPM's, or the saved context."""

    def __init__(self, tpm: Tpm) -> None:
        self._tpm = tpm
        self._objects: dict[int, int | bytes] = {}
        self._sessions: dict[int, bytes] = {}
        """Each by its handle, which saving does not change; with its context while it is saved."""

    async def run(self, command: bytes) -> bytes:
        """Raises TpmGone."""
        code = _HEADER.unpack_from(command)[2]
        if code == _FLUSH_CONTEXT:
            return await self._flush(command)
        if code == _GET_CAPABILITY and command[10:15] == struct.pack(">IB", _CAP_HANDLES, _TRANSIENT):
            return self._own_handles()
        count, makes_handle = await self._tpm.handles_of(code)
        named = bytearray(command)
        for index in range(count):
            offset = _HEADER.size + 4 * index
            handle = struct.unpack_from(">I", named, offset)[0]
            if handle >> 24 == _TRANSIENT:
                if (real := await self._loaded(handle)) is None:
                    return _HANDLE_UNKNOWN
                struct.pack_into(">I", named, offset, real)
        answer = await self._tpm.run(bytes(named), slow=True)
        if makes_handle and _succeeded(answer):
            return self._remember(answer)
        return answer

    def _remember(self, answer: bytes) -> bytes:
        real = struct.unpack_from(">I", answer, _HEADER.size)[0]
        if real >> 24 in (0x02, 0x03):
            self._sessions[real] = b""
        if real >> 24 != _TRANSIENT:
            return answer
        handle = next(each for each in range(_TRANSIENT << 24, 0x80FFFFFF) if each not in self._objects)
        self._objects[handle] = real
        return answer[:10] + struct.pack(">I", handle) + answer[14:]

    async def _flush(self, command: bytes) -> bytes:
        """The handle to flush is a parameter, not one of the command's handles."""
        handle = struct.unpack_from(">I", command, _HEADER.size)[0]
        if handle >> 24 != _TRANSIENT:
            self._sessions.pop(handle, None)
            return await self._tpm.run(command)
        held = self._objects.pop(handle, None)
        if held is None:
            return _HANDLE_UNKNOWN
        if isinstance(held, bytes):
            return struct.pack(">HII", _NO_SESSIONS, 10, 0)
        return await self._tpm.run(_command(_FLUSH_CONTEXT, struct.pack(">I", held)))

    def _own_handles(self) -> bytes:
        body = struct.pack(f">BII{len(self._objects)}I", 0, _CAP_HANDLES, len(self._objects), *self._objects)
        return _HEADER.pack(_NO_SESSIONS, _HEADER.size + len(body), 0) + body

    async def _loaded(self, handle: int) -> int | None:
        held = self._objects.get(handle)
        if isinstance(held, bytes):
            answer = await self._tpm.run(_command(_CONTEXT_LOAD, held))
            if not _succeeded(answer):
                return None  # of a TPM that was cleared or began anew
            held = self._objects[handle] = int(struct.unpack_from(">I", answer, _HEADER.size)[0])
        return held

    async def step_in(self) -> None:
        """Have the sessions back, which any command may use; objects are loaded when they are named."""
        for handle, context in self._sessions.items():
            if context:
                await self._tpm.run(_command(_CONTEXT_LOAD, context))
                self._sessions[handle] = b""

    async def step_aside(self) -> None:
        """Leave the TPM's slots to another client."""
        for handle, held in self._objects.items():
            if isinstance(held, int):
                self._objects[handle] = await self._save(held)
                await self._tpm.run(_command(_FLUSH_CONTEXT, struct.pack(">I", held)))
        for handle in self._sessions:
            self._sessions[handle] = await self._save(handle)

    async def _save(self, handle: int) -> bytes:
        return (await self._tpm.run(_command(_CONTEXT_SAVE, struct.pack(">I", handle))))[_HEADER.size :]

    async def leave(self) -> None:
        loaded = [held for held in self._objects.values() if isinstance(held, int)]
        for handle in (*loaded, *self._sessions):
            await self._tpm.run(_command(_FLUSH_CONTEXT, struct.pack(">I", handle)))


def _command(code: int, parameters: bytes) -> bytes:
    return _HEADER.pack(_NO_SESSIONS, _HEADER.size + len(parameters), code) + parameters


def _succeeded(answer: bytes) -> bool:
    return bool(_HEADER.unpack_from(answer)[2] == 0)


class ResourceManager:
    def __init__(self) -> None:
        self._tpm = Tpm()
        self._turn = asyncio.Lock()
        self._last: Client | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it goes or the TPM does."""
        client = Client(self._tpm)
        try:
            while True:
                head = await reader.readexactly(_HEADER.size)
                command = head + await reader.readexactly(_HEADER.unpack(head)[1] - _HEADER.size)
                writer.write(await self._run(client, command))
                await writer.drain()
        except (TpmGone, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            async with self._turn:
                if self._last is client:
                    self._last = None
                with contextlib.suppress(TpmGone):
                    await client.leave()

    async def _run(self, client: Client, command: bytes) -> bytes:
        async with self._turn:
            if self._last is not client:
                if self._last is not None:
                    await self._last.step_aside()
                self._last = client
                await client.step_in()
            return await client.run(command)


async def main(port: int) -> None:
    server = await asyncio.start_server(ResourceManager().serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

"""Many packets of channel data at a time: the way of a push through paramiko.

paramiko locks, copies, encrypts and writes every packet of 32 KiB by itself, which takes more of a
core than the encryption. Here a burst of packets is encrypted one after the other and written as
one. Only AES-GCM is written this way; under another cipher a burst goes packet by packet.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

import paramiko

#: What fits into one packet of sshd's usual limit beside paramiko's own overhead.
_PIECE_BYTES = (1 << 15) - 64
#: Data of one burst: whole packets, many enough to cost little, few enough to be watched.
BURST_BYTES = 8 * _PIECE_BYTES
_CHANNEL_DATA = 94
#: Bytes before the data of a message: its kind, the channel, the data's size.
_DATA_HEAD = 9
_BLOCK = 16
#: Most bytes that fill a packet up to whole blocks.
_MOST_PADDING = 3 + _BLOCK


def send(channel: paramiko.Channel, data: memoryview) -> int:
    """Send what the channel's window takes of `data`; return its size, 0 after the end.

    Raises:
        TimeoutError: The window stayed shut for the channel's timeout.
        OSError: The channel is closed.
    """
    inner: Any = channel
    pieces: list[memoryview] = []
    sent = 0
    with inner.lock:
        if inner.closed:
            raise OSError("the channel is closed")
        # The first piece waits for the window, the others take what is left of it.
        while sent < len(data) and (not pieces or inner.out_window_size > 0):
            size = inner._wait_for_send_window(len(data) - sent)
            if size == 0:
                break
            pieces.append(data[sent : sent + size])
            sent += size
    # Outside the lock, as in paramiko: a change of keys may have to be waited for.
    if pieces:
        inner.transport._send_user_message(_Burst(inner.remote_chanid, pieces))
    return sent


@dataclass(frozen=True, slots=True)
class _Burst:
    """Takes the place of a message on its way through paramiko."""

    channel: int
    pieces: list[memoryview]

    def messages(self) -> list[paramiko.Message]:
        found = []
        for piece in self.pieces:
            message = paramiko.Message()
            message.add_byte(bytes([_CHANNEL_DATA]))
            message.add_int(self.channel)
            message.add_string(bytes(piece))
            found.append(message)
        return found


class BurstPacketizer(paramiko.packet.Packetizer):
    """paramiko's writer of packets, which writes bursts too.

    The fields that it shares with paramiko's own way are private ones: the nonce, and the numbers
    of packets and bytes so far.
    """

    _Packetizer__aead_out: bool
    _Packetizer__block_engine_out: Any
    _Packetizer__compress_engine_out: Any
    _Packetizer__iv_out: bytes
    _Packetizer__sent_bytes: int
    _Packetizer__sent_packets: int
    _Packetizer__sequence_number_out: int
    _Packetizer__write_lock: Any

    def send_message(self, data: Any) -> None:
        """Write a message or a burst."""
        if not isinstance(data, _Burst):
            super().send_message(data)
            return
        *first, last = data.pieces
        quick = self._Packetizer__aead_out and self._Packetizer__compress_engine_out is None
        if first and quick:
            self._write(data.channel, first)
            data = _Burst(data.channel, [last])
        # Also the last packet of a quick burst: then paramiko looks whether new keys are due.
        for message in data.messages():
            super().send_message(message)

    def _write(self, channel: int, pieces: list[memoryview]) -> None:
        """Encrypt packets as RFC 5647 has it, their length in clear, and write them as one."""
        packets: list[bytes] = []
        filling = os.urandom(_MOST_PADDING)
        with self._Packetizer__write_lock:
            encrypt, nonce = self._Packetizer__block_engine_out.encrypt, self._Packetizer__iv_out
            for piece in pieces:
                size = _DATA_HEAD + len(piece)
                padding = 3 + _BLOCK - (size + 4) % _BLOCK
                length = struct.pack(">I", 1 + size + padding)
                head = struct.pack(">BBII", padding, _CHANNEL_DATA, channel, len(piece))
                body = b"".join((head, piece, filling[:padding]))
                packets += (length, encrypt(nonce, body, length))
                nonce = self._inc_iv_counter(nonce)  # type: ignore[attr-defined]
            self._Packetizer__iv_out = nonce
            # It wraps at 2^32, long after paramiko asked for new keys.
            self._Packetizer__sequence_number_out += len(pieces)
            self._Packetizer__sequence_number_out &= 0xFFFFFFFF
            written = b"".join(packets)
            self.write_all(memoryview(written))
            self._Packetizer__sent_bytes += len(written)
            self._Packetizer__sent_packets += len(pieces)

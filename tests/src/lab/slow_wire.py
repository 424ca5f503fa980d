"""A wire that takes its time: two network devices, and each packet that goes in at one comes out of the other later.

slow_wire.py MILLISECONDS DEVICE DEVICE LOG

The log has a line for each packet that says something, of those that go in at the first device and those that come
out of it: the moment when it was sent, the direction and what it is.
"""

import collections
import fcntl
import os
import struct
import sys
import threading
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
TCP, UDP, ACK_ALONE = 6, 17, 0x10


def device(name):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def meaning(packet):
    """What a packet of IPv4 is, in words; nothing if it only acknowledges another."""
    if packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP):
        return None
    body = packet[(packet[0] & 15) * 4 : struct.unpack("!H", packet[2:4])[0]]
    if packet[9] == UDP:
        return f"udp {len(body) - 8}"
    flags, data = body[13], bytes(body[(body[12] >> 4) * 4 :])
    if not data and flags == ACK_ALONE:
        return None
    names = [name for bit, name in ((2, "syn"), (1, "fin"), (4, "rst")) if flags & bit]
    first = data.split(b"\r\n")[0].decode("ascii", "replace") if data[:4].isalpha() or data[:4] == b"GET " else ""
    return " ".join(["tcp", *names, str(len(data)), first]).strip()


def carry(source, target, delay, note):
    waiting, changed = collections.deque(), threading.Condition()

    def put_out():
        while True:
            with changed:
                while not waiting:
                    changed.wait()
                moment, packet = waiting.popleft()
            time.sleep(max(0, moment - time.monotonic()))
            try:
                os.write(target, packet)
            except OSError:
                pass  # the device is down still

    threading.Thread(target=put_out, daemon=True).start()
    while True:
        try:
            packet = os.read(source, 65536)
        except OSError:
            time.sleep(0.01)
            continue
        now = time.monotonic()
        with changed:
            waiting.append((now + delay, packet))
            changed.notify()
        note(now, packet)


def main():
    delay, log = float(sys.argv[1]) / 1e3, open(sys.argv[4], "a", buffering=1)
    here, there = device(sys.argv[2]), device(sys.argv[3])

    def note(direction):
        def write(now, packet):
            what = meaning(packet)
            if what:
                log.write(f"{now * 1e3:.1f} {direction} {what}\n")

        return write

    for source, target, direction in ((here, there, "->"), (there, here, "<-")):
        threading.Thread(target=carry, args=(source, target, delay, note(direction)), daemon=True).start()
    # It ends with whoever started it, and by itself after an hour.
    parent, until = os.getppid(), time.monotonic() + 3600
    while os.getppid() == parent and time.monotonic() < until:
        time.sleep(1)


main()

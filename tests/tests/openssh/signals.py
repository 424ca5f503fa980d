"""Programs in the workspace `dev` that are sent signals by the SSH protocol: how each ends, a line each.

signals.py WARREN
"""

import asyncio
import sys

import asyncssh

WAITS = "echo up; exec sleep 60"
CATCHES = "trap 'echo heard; exit 3' USR1; echo up; while :; do sleep 0.05; done"


async def send(connection, name, script):
    process = await connection.create_process(script)
    assert await process.stdout.readline() == "up\n"
    process.send_signal(name)
    ended = await asyncio.wait_for(process.wait(), 30)
    if ended.exit_signal:
        return f"killed by {ended.exit_signal[0]}"
    return f"status {ended.exit_status} after {ended.stdout.strip()}"


async def main():
    proxy = [sys.argv[1], "ssh", "--stdio", "dev"]
    options = {"username": "dev", "known_hosts": None, "client_keys": None, "config": None}
    async with asyncssh.connect("dev", proxy_command=proxy, **options) as connection:
        for name in ("TERM", "HUP", "INT", "QUIT", "KILL"):
            print(f"{name}: {await send(connection, name, WAITS)}")
        print(f"USR1 that is caught: {await send(connection, 'USR1', CATCHES)}")


asyncio.run(main())
